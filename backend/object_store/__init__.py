"""Models in an object store, for many machines without a shared disk: the same promises as in a folder.

::

    waiting.py       before something is tried again
    bucket.py        reading, writing and swapping objects; the errors of the store in the words of the contract
    address.py       MODELS_URL, endpoint and credentials, from the usual environment and files
    probe.py         what a store must do, tried at the start
    units.py         which files change together, and the name of their manifest
    manifest.py      the format of manifests: which files there are, by content
    swap.py          replacing a manifest unless somebody else did
    local_copy.py    what this process has read of the store, as the files that they are in a folder
    unit_state.py    what of a unit is here
    lost.py          files whose bytes the store has lost: in words, and what mends them
    fetching.py      bytes from the store, and which are lost
    uploading.py     bytes to the store
    scratch.py       what a change did to a scratch folder
    mirror.py        looking at manifests before reading, and changing files with them
    models.py datasets.py recipes.py layouts.py drift.py judgements.py runs.py
                     what the use cases ask for, see `backend.service.stores`
    catalog.py       what there is in the whole store: names, counts
    opening.py       all of this, opened
    transfer.py      push and pull, check and gc
"""

"""``make bench``: runs the benchmarks that take at most minutes, one after the other.

The others take longer or print more. Run them with ``python -m benchmarks.<name>``:

- ``serving``: single, load, fit, queue; ``--precision float32 bfloat16``, ``--rounds``
- ``footprint``: server (start and memory), size
- ``datasets``: 10,000 stored images; a whole data set compared with single calls
- ``console``: waiting times in the console, in the installed browsers
- ``anchor``: finding moved parts in the console, on folders in MVTec layout; ``--scores``
- ``bank``: honest scores, suspicions, appended images, on folders in MVTec layout
- ``copies``: detection of near copies, on folders in MVTec layout
- ``sampled_scores``: scores of a sample of the images of a large fit, on folders in MVTec layout
- ``drift``: false alarms and delays, on folders in MVTec layout
- ``thresholds``: the promises of thresholds, on your own data sets
- ``profiles``: cost of the recommended profile, on a folder in MVTec layout
- ``pictures``: how calm pictures of good parts are, on folders in MVTec layout; ``--costs``, ``--overlays``
- ``decisions``: false rejects and escapes at the chosen thresholds, on your own data sets; ``--planted``
- ``poly_cells``: writes a data set that influenced no choice, for ``decisions`` and ``level``
- ``detail``: small planted defects found on 2448×2048 scenes of real parts; ``--details``, ``--others``, ``--quick``
- ``detail_sets``: detail 2 compared with detail 1 on data sets as they are, on folders in MVTec layout; ``--splits``
- ``detail_times``: time of an inference at each detail, beside N² inferences at detail 1; ``--cpu``
- ``regions``: like ``decisions``, but regions decide, on folders in MVTec layout
- ``level``: scores minus the level of their image, on folders in MVTec layout; ``--splits``
- ``precision``: bfloat16 and int8 compared with float32, on folders in MVTec layout; ``--curve``, ``--orders``
- ``precision_cpus``: a bank of int8 that one CPU built, scored on another, on folders in MVTec layout
- ``history``: extra time of an inference if judgements are kept
- ``gui_crops``: crops of the console for models of the existing GUI, compared with OpenCV
- ``object_store``: requests, time and cost of models in an object store, compared with a folder
- ``cluster_fit``: a memory bank from a million embeddings in the workers of a cluster, compared with one process
- ``cluster_serving``: an inference by a replica on Ray, compared with plain uvicorn; ``--rounds``
- ``scale_model``: capacity on paper, and what binds at 1 to 1,000 nodes
- ``rois``: a list of 200 ROIs, compared with reading their memory banks; ``--rois``
- ``watch``: parts per second of `watch`, compared with clients that cut nothing, or cut and wait in turn; ``--parts``
- ``scaling``: four curves and their figure, ``docs/benchmarks.png``; ``--quick``
- ``levers``: changes that raise accuracy, on folders in MVTec layout; ``--data FOLDER …``
"""

from benchmarks import coreset, fit, footprint, outside, runtimes, search, serving, stages

if __name__ == "__main__":
    for script in (runtimes, coreset, search, fit, outside, stages):
        script.main()
    footprint.size()
    serving.main(["single", "load", "--rounds", "15"])

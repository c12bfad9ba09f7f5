"""``make bench``: the claims that take minutes at most, one after the other.

Those with ``python -m benchmarks.<name>`` alone, since they take longer or say more:

- ``serving``: single, load, fit, queue; ``--precision float32 bfloat16``, ``--rounds``
- ``footprint``: server (start and memory), size
- ``datasets``: 10,000 stored images; a whole data set beside single calls
- ``console``: what people wait for in the console, in the browsers that are installed
- ``anchor``: moved parts in the console, on folders in MVTec layout; ``--scores``
- ``bank``: honest scores, suspicions, appended images, on folders in MVTec layout
- ``copies``: near copies that are found, on folders in MVTec layout
- ``sampled_scores``: scores of a sample of a large fit's images, on folders in MVTec layout
- ``drift``: false alarms and delays, on folders in MVTec layout
- ``thresholds``: what thresholds promise, on data sets of yours
- ``profiles``: what the recommended profile costs, on a folder in MVTec layout
- ``pictures``: how calm pictures of good parts are, on folders in MVTec layout; ``--costs``, ``--overlays``
- ``decisions``: parts rejected and escaped at the thresholds that are chosen, on data sets of yours; ``--planted``
- ``poly_cells``: writes a data set that chose nothing, for ``decisions`` and ``level``
- ``regions``: the same as ``decisions`` where regions decide, on folders in MVTec layout
- ``level``: scores less the level of their image, on folders in MVTec layout; ``--splits``
- ``precision``: bfloat16 beside float32, on folders in MVTec layout
- ``history``: what an inference takes longer where judgements are kept
- ``gui_crops``: the console's crops for the existing GUI's models, beside an OpenCV
- ``object_store``: requests, milliseconds and cost of models in an object store, beside a folder
- ``rois``: a list of 200 ROIs beside their memory banks; ``--rois``
- ``watch``: parts per second of `watch` beside clients that cut nothing, or cut and ask in turn; ``--parts``
- ``scaling``: four curves and their figure, ``docs/benchmarks.png``; ``--quick``
- ``levers``: what raises accuracy, on folders in MVTec layout; ``--data FOLDER …``
"""

from benchmarks import coreset, fit, footprint, outside, runtimes, search, serving, stages

if __name__ == "__main__":
    for script in (runtimes, coreset, search, fit, outside, stages):
        script.main()
    footprint.size()
    serving.main(["single", "load", "--rounds", "15"])

"""Fits scikit-learn's like of a trainer on rows that treeline-bench-learning wrote; prints one line of JSON."""

import json
import sys
import time

import numpy
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

folder, kind, columns, parameters = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])


def load(part):
    features = numpy.fromfile(f"{folder}/{part}.features", dtype="<u4").reshape(-1, columns)
    # What the library would convert to anyway, and not counted as its time.
    return features.astype(numpy.float32), numpy.fromfile(f"{folder}/{part}.targets", dtype="<f8")


features, targets = load("train")
shape = {
    "max_depth": parameters["splits"],
    "min_samples_leaf": parameters["min_leaf_rows"],
    "random_state": parameters["seed"],
}
if kind == "tree":
    model = DecisionTreeRegressor(**shape)
else:
    model = RandomForestRegressor(
        n_estimators=parameters["trees"], max_features=parameters["features_a_split"], n_jobs=1, **shape
    )
began = time.perf_counter()
model.fit(features, targets)
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "r2": model.score(*load("later"))}))

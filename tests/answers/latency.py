"""Planted answers to the exercises of chapter 12."""

import math


def solved(macs, weight_bytes, image_bytes, peak, bandwidth):
    gain = 2 * macs / peak - image_bytes / bandwidth
    return math.inf if gain <= 0 else max(1, math.ceil(weight_bytes / bandwidth / gain))


def tried(macs, weight_bytes, image_bytes, peak, bandwidth):
    return next((batch for batch in range(1, 10_000)
                 if 2 * macs * batch / peak >= (weight_bytes + batch * image_bytes) / bandwidth), math.inf)


def never_infinite(macs, weight_bytes, image_bytes, peak, bandwidth):
    return math.ceil(weight_bytes / bandwidth / (2 * macs / peak - image_bytes / bandwidth))


RIGHT = {
    "latency.flaws": [{"A": "synchronisation", "B": "order", "C": "percentile"},
                      {"c": " Percentile", "b": "ORDER", "a": "synchronisation"}],
    "latency.batch_from_roofline": [solved, tried],
}
WRONG = {
    "latency.flaws": [({"A": "order", "B": "order", "C": "percentile"}, "benchmark A does not"),
                      ({"A": "synchronisation", "B": "zeros", "C": "percentile"}, "slows down"),
                      ({"A": "synchronisation", "B": "order", "C": "units"}, "count the samples"),
                      ({"A": "synchronisation", "B": "order"}, "C is missing"),
                      ({"A": "gremlins", "B": "order", "C": "percentile"}, "choose from"),
                      (["order"], "wanted a dict")],
    "latency.batch_from_roofline": [
        (lambda macs, *rest: solved(macs / 2, *rest), "it is two"), (never_infinite, "math.inf"),
        (lambda macs, weights, image, *roof: solved(macs, weights, 0, *roof), "bytes of its own"),
        (lambda macs, weights, image, *roof: solved(macs, 0, image, *roof), "weights are read once"),
        (lambda *given: solved(*given) - 1, "round up"),
        (lambda macs, weights, image, peak, bandwidth: weights / bandwidth / (2 * macs / peak - image / bandwidth),
         "whole number")],
}

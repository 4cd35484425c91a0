"""Planted answers to the exercises of chapter 11."""

import math


def by_letters(q, k, v):
    B, h, N, d = q
    return 2 * B * h * N * k[2] * (d + v[3])


def by_products(q, k, v):
    logits = math.prod(q) * k[-2]
    values = math.prod(q[:-1]) * math.prod(v[-2:])
    return 2 * (logits + values)


RIGHT = {
    "cost.handle": [by_letters, by_products],
    "cost.share": [lambda N, C: N / (N + 6 * C),
                   lambda N, C: 2 * N * N * C / (2 * N * N * C + 4 * N * C * C + 8 * N * C * C)],
}
WRONG = {
    "cost.handle": [(lambda q, k, v: by_letters(q, k, v) // 2, "multiply-adds"),
                    (lambda q, k, v: 2 * math.prod(q) * k[2], "only the product of queries"),
                    (lambda q, k, v: by_letters(q, q, v), "N x M"),
                    (lambda q, k, v: by_letters((1, *q[1:]), k, v), "each image"),
                    (lambda q, k, v: 4 * math.prod(q) * k[2], "another number of channels"),
                    (lambda q, k, v: 0, "spelt out count")],
    "cost.share": [(lambda N, C: N / (N + 2 * C), "MLP"), (lambda N, C: N / (N + 4 * C), "projections"),
                   (lambda N, C: N / 6 / C, "its share of the whole"), (lambda N, C: 1 - N / (N + 6 * C), "what stays"),
                   (lambda N, C: 100 * N / (N + 6 * C), "per cent"), (lambda N, C: 0.5, "the share is")],
}

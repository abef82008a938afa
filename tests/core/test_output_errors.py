"""The relative output error against its definition, written out."""

import math

import pytest
import torch

from statprune.core.output_errors import error_without_and_with_bias, output_errors
from tests.helpers.matrices import random_matrix


def outputs(weight, rows):
    return [[sum(w * x for w, x in zip(line, row, strict=True)) for line in weight.tolist()] for row in rows.tolist()]


def norm(matrix):
    return math.sqrt(sum(value * value for row in matrix for value in row))


def test_each_error_is_relative_to_the_dense_outputs():
    dense, x, _ = random_matrix(tokens=9)
    weights = [dense * (dense.abs() > 0.7), 3 * dense]
    for error, weight in zip(output_errors(dense, weights, x), weights, strict=True):
        wanted = norm(outputs(dense - weight, x)) / norm(outputs(dense, x))
        assert error.item() == pytest.approx(wanted)


def test_the_errors_have_the_weights_precision():
    dense, x, _ = random_matrix(tokens=9)
    (error,) = output_errors(dense, [dense * 0.5], x.float())
    assert error.dtype == torch.float64 and error.item() == pytest.approx(0.5)


@pytest.mark.parametrize(("rows", "scale"), [(0, 1.0), (3, 0.0)])
def test_without_rows_or_dense_outputs_there_is_no_error(rows, scale):
    dense, x, _ = random_matrix()
    (error,) = output_errors(dense, [dense * 0.5], x[:rows] * scale)
    assert error.isnan()


def test_a_bias_takes_the_mean_shift_out_of_the_error():
    dense, x, _ = random_matrix(tokens=9)
    x = x + 2
    weight, mean = dense * (dense.abs() > 0.7), x.mean(0)
    bias = ((dense - weight) @ mean)[None]
    wanted = (x @ weight.T + bias - x @ dense.T).norm() / (x @ dense.T).norm()
    _, with_bias = error_without_and_with_bias(dense, weight, x, mean)
    assert with_bias.item() == pytest.approx(wanted.item())
    assert with_bias < output_errors(dense, [weight], x)[0]
    assert error_without_and_with_bias(dense, weight, x[:0], mean)[1].isnan()


def test_both_errors_together_are_those_of_their_own():
    dense, x, _ = random_matrix(tokens=9)
    weight, mean = dense * (dense.abs() > 0.7), x.mean(0) + 1
    error, with_bias = error_without_and_with_bias(dense, weight, x, mean)
    assert error.item() == pytest.approx(norm(outputs(dense - weight, x)) / norm(outputs(dense, x)))
    assert with_bias.item() == pytest.approx(norm(outputs(dense - weight, x - mean)) / norm(outputs(dense, x)))

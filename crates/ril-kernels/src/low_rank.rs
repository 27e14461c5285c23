//! What an adapter of low rank adds to a product.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use crate::flex::{contiguous, is_fused, tensor, values, values_mut};
use crate::matrix::{Matrix, MatrixMut, Output, fresh_product, multiply};
use crate::{simd, tape};

/// `y + scale * (x a) b`, into the memory of `y` where nothing else holds it.
///
/// The backward pass needs no product with anything larger than `x` and `y`: `dy = g`, `db = scale (x a)^T g`,
/// `da = x^T (scale g b^T)`, `dx = (scale g b^T) a^T`, each if it is wanted. Source: LoRA, arXiv 2106.09685.
///
/// # Shapes
/// `y`: `[tokens, output]`; `x`: `[tokens, input]`; `a`: `[input, rank]`; `b`: `[rank, output]`; output `[tokens, output]`.
#[must_use]
pub fn add_low_rank(y: Tensor<2>, x: Tensor<2>, [a, b]: [Tensor<2>; 2], scale: f64) -> Tensor<2> {
    let tensors = [&y, &x, &a, &b];
    let is_empty = tensors.iter().any(|tensor| tensor.dims().contains(&0));
    if is_empty || !tensors.into_iter().all(is_fused) {
        return plain(y, x, [a, b], scale);
    }
    let [y, x, a, b] = [y, x, a, b].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::add_low_rank(y, x, a, b, scale))
}

fn plain(y: Tensor<2>, x: Tensor<2>, [a, b]: [Tensor<2>; 2], scale: f64) -> Tensor<2> {
    y + (x.matmul(a) * scale).matmul(b)
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait LowRankOps: Backend {
    fn add_low_rank(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;
}

impl LowRankOps for Flex {
    fn add_low_rank(y: FlexTensor, x: FlexTensor, a: FlexTensor, b: FlexTensor, scale: f64) -> FlexTensor {
        let (a, b) = (contiguous(a), contiguous(b));
        let low = reduce(&contiguous(x), &turn(&a), scale);
        expand(y, &low, &b)
    }
}

/// `[rows, columns]` as `[columns, rows]`, in memory.
fn turn(matrix: &FlexTensor) -> FlexTensor {
    matrix.transpose(0, 1).to_contiguous()
}

/// `scale * factor x^T`, `[rank, tokens]` for `factor`: `[rank, width]` and `x`: `[tokens, width]`. This way round the
/// large operand is read once, where it lies, and the few rows of the other one stay in the cache.
fn reduce(x: &FlexTensor, factor: &FlexTensor, scale: f64) -> FlexTensor {
    let ([tokens, width], [rank, inner]) = (x.shape().dims(), factor.shape().dims());
    assert_eq!(width, inner, "low rank: rows of {width}, a factor of {inner}");
    let factor = Matrix::rows(values(factor), width);
    let mut low = fresh_product([rank, tokens, width], factor, Matrix::rows(values(x), width).transposed(), None);
    simd::scale(&mut low, scale as f32);
    tensor(low, [rank, tokens])
}

/// `y + low^T factor` for `low`: `[rank, tokens]` and `factor`: `[rank, width]`.
fn expand(y: FlexTensor, low: &FlexTensor, factor: &FlexTensor) -> FlexTensor {
    let ([rank, tokens], [_, width]) = (low.shape().dims(), factor.shape().dims());
    let mut y = contiguous(y);
    let low = turn(low);
    let (low, factor) = (Matrix::rows(values(&low), rank), Matrix::rows(values(factor), width));
    multiply([tokens, width, rank], low, factor, MatrixMut::rows(values_mut(&mut y), width), Output::AddedTo);
    y
}

/// `low rows`, `[rank, width]` for `low`: `[rank, tokens]` and `rows`: `[tokens, width]`.
fn gather(low: &FlexTensor, rows: &FlexTensor) -> FlexTensor {
    let ([rank, tokens], [_, width]) = (low.shape().dims(), rows.shape().dims());
    let (low, rows) = (Matrix::rows(values(low), tokens), Matrix::rows(values(rows), width));
    tensor(fresh_product([rank, width, tokens], low, rows, None), [rank, width])
}

#[derive(Debug, Clone)]
struct LowRankState {
    x: FlexTensor,
    /// `[rank, input]`
    a_turned: FlexTensor,
    b: FlexTensor,
    /// `scale * (x a)^T`, `[rank, tokens]`
    low: FlexTensor,
    scale: f64,
}

#[derive(Debug)]
struct LowRank;

impl Backward<Flex, 4> for LowRank {
    type State = LowRankState;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let LowRankState { x, a_turned, b, low, scale } = ops.state.clone();
        let [y, to_x, to_a, to_b] = tape::wanted(&ops);
        // scale * b g^T, `[rank, tokens]`
        let low_grad = (to_x || to_a).then(|| reduce(&grad, &b, scale));
        let b_grad = to_b.then(|| gather(&low, &grad));
        let a_grad = low_grad.as_ref().filter(|_| to_a).map(|low_grad| turn(&gather(low_grad, &x)));
        let x_grad = low_grad.as_ref().filter(|_| to_x).map(|low_grad| {
            let ([rank, tokens], [_, width]) = (low_grad.shape().dims(), a_turned.shape().dims());
            let low_grad = turn(low_grad);
            let factors = (Matrix::rows(values(&low_grad), rank), Matrix::rows(values(&a_turned), width));
            tensor(fresh_product([tokens, width, rank], factors.0, factors.1, None), [tokens, width])
        });
        tape::register(grads, ops, [y.then_some(grad), x_grad, a_grad, b_grad]);
    }
}

impl<C: CheckpointStrategy> LowRankOps for Autodiff<Flex, C> {
    fn add_low_rank(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let ((y, y_node), (x, x_node)) = (y.into_parts(), x.into_parts());
        let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
        let (x, a_turned, b) = (contiguous(x), turn(&a), contiguous(b));
        let low = reduce(&x, &a_turned, scale);
        let output = expand(y, &low, &b);
        let state = LowRankState { x, a_turned, b, low, scale };
        tape::record::<C, _, 4>(LowRank, [y_node, x_node, a_node, b_node], output, state)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{assert_close, gradient, scattered, values};

    #[test]
    fn values_and_gradients_are_those_of_the_plain_operations() {
        for ([m, k, r, n], recomputes) in
            [[1, 1, 1, 1], [3, 5, 2, 7], [130, 96, 4, 60], [33, 64, 16, 200], [7, 300, 40, 90], [0, 3, 2, 4]]
                .into_iter()
                .flat_map(|sizes| [(sizes, false), (sizes, true)])
        {
            let device =
                if recomputes { Device::flex().autodiff().gradient_checkpointing() } else { Device::flex().autodiff() };
            let run = |operator: fn(Tensor<2>, Tensor<2>, [Tensor<2>; 2], f64) -> Tensor<2>| {
                let leaf = |shape, seed| scattered(shape, seed, &device).require_grad();
                let (y, x) = (leaf([m, n], 0.9), leaf([m, k], 0.3));
                let (a, b) = (leaf([k, r], 1.1), leaf([r, n], 1.7));
                let out = operator(y.clone() * 2.0, x.clone(), [a.clone(), b.clone()], 1.5);
                let pull = scattered([m, n], 2.7, &device.clone().inner());
                let gradients = (out.clone() * pull).sum().backward();
                let [y, x, a, b] = [y, x, a, b].map(|leaf| gradient(&leaf, &gradients));
                [values(&out), y, x, a, b]
            };
            for (got, want) in run(add_low_rank).iter().zip(run(plain)) {
                assert_close(got, &want, 2e-5);
            }
        }
    }

    #[test]
    fn a_sum_that_is_held_elsewhere_stays() {
        let device = Device::flex();
        let y = scattered([3, 4], 0.3, &device);
        let before = values(&y);
        let [a, b] = [scattered([2, 1], 0.1, &device), scattered([1, 4], 0.2, &device)];
        let out = add_low_rank(y.clone(), scattered([3, 2], 0.7, &device), [a, b], 1.0);
        assert_eq!(values(&y), before);
        assert_ne!(values(&out), before);
    }

    #[test]
    fn constants_get_no_gradient() {
        let device = Device::flex().autodiff();
        let constant = |shape, seed| scattered(shape, seed, &device);
        let b = constant([2, 4], 0.5).require_grad();
        let [y, x, a] = [([3, 4], 0.1), ([3, 5], 0.2), ([5, 2], 0.3)].map(|(shape, seed)| constant(shape, seed));
        let gradients = add_low_rank(y.clone(), x.clone(), [a.clone(), b.clone()], 1.0).sum().backward();
        assert_eq!(gradient(&b, &gradients).len(), 8);
        assert!([y, x, a].iter().all(|constant| constant.grad(&gradients).is_none()));
    }
}

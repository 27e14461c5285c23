//! Products with weights.

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

use crate::flex::{contiguous, is_fused, tensor, values};
use crate::matrix::{Matrix, fresh_product};
use crate::{int8, simd, tape};

/// `x weight + bias`; a weight of [`to_int8`](crate::to_int8) is read as it is and has no gradient.
///
/// # Shapes
/// `x`: `[tokens, input]`; `weight`: `[input, output]`, any strides; `bias`: `[output]`; output `[tokens, output]`.
#[must_use]
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    if int8::is_fused_with(&x, &weight) {
        return plus(int8::product(x, weight), bias);
    }
    if !(is_fused(&x) && is_fused(&weight)) {
        return plain(x, weight, bias);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        None => Dispatch::linear(x, weight),
        Some(bias) => Dispatch::linear_bias(x, weight, bias.into_dispatch()),
    })
}

fn plain(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    plus(x.matmul(weight), bias)
}

fn plus(product: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        None => product,
        Some(bias) => product + bias.unsqueeze(),
    }
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait LinearOps: Backend {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
    fn linear_bias(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl LinearOps for Flex {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        product(&x, &weight, None)
    }

    fn linear_bias(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        product(&x, &weight, Some(&contiguous(bias)))
    }
}

fn product(x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
    let ([m, k], [rows, n]) = (x.shape().dims(), weight.shape().dims());
    assert_eq!(k, rows, "linear: x is [{m}, {k}], the weight [{rows}, {n}]");
    let bias = bias.map(values);
    assert!(bias.is_none_or(|bias| bias.len() == n), "linear: the bias does not have {n} values");
    let (x, weight) = (with_strides(x), with_strides(weight));
    let (Some(a), Some(b)) = (Matrix::of(&x), Matrix::of(&weight)) else {
        unreachable!("a matrix of two axes and positive strides");
    };
    tensor(fresh_product([m, n, k], a, b, bias), [m, n])
}

/// The tensor, copied if its strides are not those of a matrix product.
fn with_strides(tensor: &FlexTensor) -> FlexTensor {
    if Matrix::of(tensor).is_some() { tensor.clone() } else { tensor.to_contiguous() }
}

/// What the backward pass needs: `x` if the weight is trained, the weight if something before it is.
#[derive(Debug, Clone)]
struct Operands {
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
}

impl Operands {
    /// Of a frozen weight nothing is kept but the weight.
    fn of<C: CheckpointStrategy>(x: &FloatTensor<Autodiff<Flex, C>>, weight: &FloatTensor<Autodiff<Flex, C>>) -> Self {
        let kept = |kept: bool, tensor: &FlexTensor| kept.then(|| tensor.clone());
        Self { x: kept(weight.is_tracked(), x.primitive()), weight: kept(x.is_tracked(), weight.primitive()) }
    }
}

/// `dx = g W^T` and `dW = x^T g`, each if it is wanted.
fn operand_gradients(grad: &FlexTensor, operands: &Operands, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
    let (x, weight) = (operands.x.as_ref(), operands.weight.as_ref());
    [
        weight.filter(|_| wanted[0]).map(|weight| product(grad, &weight.transpose(0, 1), None)),
        x.filter(|_| wanted[1]).map(|x| product(&x.transpose(0, 1), grad, None)),
    ]
}

#[derive(Debug)]
struct Linear;

impl Backward<Flex, 2> for Linear {
    type State = Operands;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let values = operand_gradients(&grad, &ops.state, tape::wanted(&ops));
        tape::register(grads, ops, values);
    }
}

#[derive(Debug)]
struct LinearBias;

impl Backward<Flex, 3> for LinearBias {
    type State = Operands;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let [x, weight, bias] = tape::wanted(&ops);
        let [x_grad, weight_grad] = operand_gradients(&grad, &ops.state, [x, weight]);
        let bias_grad = bias.then(|| {
            let width = grad.shape()[1];
            let mut sum = vec![0.0; width];
            values(&grad).chunks_exact(width.max(1)).for_each(|row| simd::add(&mut sum, row));
            tensor(sum, [width])
        });
        tape::register(grads, ops, [x_grad, weight_grad, bias_grad]);
    }
}

impl<C: CheckpointStrategy> LinearOps for Autodiff<Flex, C> {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let operands = Operands::of::<C>(&x, &weight);
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let output = product(&x, &weight, None);
        tape::record::<C, _, 2>(Linear, [x_node, weight_node], output, operands)
    }

    fn linear_bias(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let operands = Operands::of::<C>(&x, &weight);
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (bias, bias_node) = bias.into_parts();
        let output = product(&x, &weight, Some(&contiguous(bias)));
        tape::record::<C, _, 3>(LinearBias, [x_node, weight_node, bias_node], output, operands)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{assert_close, gradient, scattered, values};

    #[test]
    fn values_and_gradients_are_those_of_the_plain_operations() {
        for (([m, k, n], is_tied), recomputes) in
            [([1, 1, 1], false), ([3, 5, 7], true), ([130, 96, 60], false), ([33, 64, 200], true)]
                // Large enough for the products of few rows.
                .into_iter()
                .chain([([1, 96, 1500], false), ([1, 96, 1500], true), ([3, 96, 500], false), ([3, 96, 500], true)])
                .flat_map(|sizes| [(sizes, false), (sizes, true)])
        {
            let device =
                if recomputes { Device::flex().autodiff().gradient_checkpointing() } else { Device::flex().autodiff() };
            let run = |product: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>, has_bias: bool| {
                let x = scattered([m, k], 0.3, &device).require_grad();
                let stored = scattered(if is_tied { [n, k] } else { [k, n] }, 1.1, &device).require_grad();
                let weight = if is_tied { stored.clone().transpose() } else { stored.clone() };
                let bias = scattered([n], 1.9, &device).require_grad();
                let out = product(x.clone(), weight, has_bias.then(|| bias.clone()));
                let pull = scattered([m, n], 2.7, &device.clone().inner());
                let gradients = (out.clone() * pull).sum().backward();
                let of_bias = if has_bias { gradient(&bias, &gradients) } else { Vec::new() };
                [values(&out), gradient(&x, &gradients), gradient(&stored, &gradients), of_bias]
            };
            for has_bias in [false, true] {
                for (got, want) in run(linear, has_bias).iter().zip(run(plain, has_bias)) {
                    assert_close(got, &want, 2e-5);
                }
            }
        }
    }

    #[test]
    fn an_empty_inner_axis_gives_the_bias() {
        let device = Device::flex();
        let [x, weight] = [[2, 0], [0, 3]].map(|shape| Tensor::<2>::zeros(shape, &device));
        let bias = scattered([3], 0.2, &device);
        let out = linear(x.clone(), weight.clone(), Some(bias.clone()));
        assert_eq!(values(&out), values(&bias).repeat(2));
        assert_eq!(values(&linear(x, weight, None)), [0.0; 6]);
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient() {
        let device = Device::flex().autodiff();
        let x = scattered([2, 3], 0.3, &device).require_grad();
        let weight = scattered([3, 4], 0.3, &device);
        let gradients = linear(x.clone(), weight.clone(), None).sum().backward();
        assert_eq!(gradient(&x, &gradients).len(), 6);
        assert!(weight.grad(&gradients).is_none());
    }
}

//! Single operators of a transformer, forward and backward, on 8 rows of 128 tokens in the widths of a model.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ril::grpo::selective_log_probs;
use ril_kernels::{AttentionPlan, RotaryTable, attention, linear, rms_norm, rotate, swiglu};
use safetensors::SafeTensors;

use crate::{Failure, Work, Worked, words};

/// Times that one piece of work runs the operator: one alone is over in a millisecond.
const PASSES: usize = 10;
/// Tokens of a causal row.
const ROW: usize = 128;

/// `head` is the weight of the language head, `[hidden, vocab]`.
pub fn prepare(work: Work, inputs: &Path, head: Tensor<2>) -> Result<Worked, Failure> {
    let bytes = std::fs::read(inputs)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let device = Device::flex();
    Ok(match work {
        Work::Linear => {
            let (x, weight) = (leaf::<2>(&file, "x")?, leaf::<2>(&file, "weight")?);
            passes(x, move |x| linear(x, weight.clone(), None))
        }
        Work::RmsNorm => {
            let (x, gain) = (leaf::<2>(&file, "x")?, leaf::<1>(&file, "gain")?);
            passes(x, move |x| rms_norm(x, gain.clone(), 1e-6))
        }
        Work::Swiglu => {
            let (gate, up) = (leaf::<2>(&file, "gate")?, leaf::<2>(&file, "up")?);
            passes(gate, move |gate| swiglu(gate, up.clone()))
        }
        Work::Rotary => {
            let (q, angles) = (leaf::<3>(&file, "q")?, floats(&file, "angles")?);
            let table = RotaryTable::from_angles(&angles, q.dims()[0], &device);
            passes(q, move |q| rotate(q, &table))
        }
        Work::Attention => {
            let (q, k, v) = (leaf::<3>(&file, "q")?, leaf::<3>(&file, "k")?, leaf::<3>(&file, "v")?);
            let tokens = q.dims()[0];
            let plan = Arc::new(AttentionPlan::causal_rows(&vec![ROW; tokens / ROW]));
            passes(q, move |q| attention(q, k.clone(), v.clone(), &plan))
        }
        Work::LogProbs => {
            let x = leaf::<2>(&file, "x")?;
            let head = head.autodiff().require_grad();
            let targets: Vec<i64> =
                words::<8>(file.tensor("operators.targets")?.data()).map(i64::from_le_bytes).collect();
            let count = targets.len();
            let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [1, count]), &device);
            passes(x, move |x| {
                let got = selective_log_probs(x.unsqueeze(), head.clone(), targets.clone(), 512, 1.0);
                got.expect("shapes that fit")
            })
        }
        _ => return Err("not an operator".into()),
    })
}

/// Forward and backward again and again. The number to compare is the norm of a token's gradient, the last of a row, under a
/// loss that passes neither a wrong forward nor a wrong backward.
fn passes<const D: usize, const E: usize>(
    leaf: Tensor<D>,
    forward: impl Fn(Tensor<D>) -> Tensor<E> + Send + Sync + 'static,
) -> Worked {
    let out = forward(leaf.clone());
    let (shape, count) = (out.dims(), out.shape().num_elements());
    let pull = (0..count).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect::<Vec<_>>();
    let pull = Tensor::<E>::from_data(TensorData::new(pull, shape), &Device::flex());
    let gradients = ((out.clone() * 0.5 + pull) * out).sum().backward();
    let gradient = leaf.grad(&gradients).expect("a leaf of the loss");
    let norm = gradient.narrow(0, ROW - 1, 1).powi_scalar(2).sum().sqrt().into_scalar::<f32>();
    // On a thread of the pool, as operators run inside of a model; backward from a gradient of ones.
    let run = move || (0..PASSES).for_each(|_| drop(forward(leaf.clone()).backward()));
    Box::new(move || {
        rayon::join(&run, || ());
        Ok(f64::from(norm))
    })
}

fn leaf<const D: usize>(file: &SafeTensors<'_>, name: &str) -> Result<Tensor<D>, Failure> {
    let shape = file.tensor(&format!("operators.{name}"))?.shape().to_vec();
    Ok(Tensor::from_data(TensorData::new(floats(file, name)?, shape), &Device::flex().autodiff()).require_grad())
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, Failure> {
    Ok(words::<4>(file.tensor(&format!("operators.{name}"))?.data()).map(f32::from_le_bytes).collect())
}

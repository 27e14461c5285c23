//! Single operators of a transformer, forward and backward, on 8 rows of 128 tokens in the widths of a model.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ril::grpo::selective_log_probs;
use ril_kernels::{AttentionBlock, AttentionPlan, RotaryTable, attention, linear, rms_norm, rotate, swiglu};
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
            passes(x, move |x| linear(x, weight.clone(), None).sum())
        }
        Work::RmsNorm => {
            let (x, gain) = (leaf::<2>(&file, "x")?, leaf::<1>(&file, "gain")?);
            passes(x, move |x| rms_norm(x, gain.clone(), 1e-6).sum())
        }
        Work::Swiglu => {
            let (gate, up) = (leaf::<2>(&file, "gate")?, leaf::<2>(&file, "up")?);
            passes(gate, move |gate| swiglu(gate, up.clone()).sum())
        }
        Work::Rotary => {
            let (q, angles) = (leaf::<3>(&file, "q")?, floats(&file, "angles")?);
            let table = RotaryTable::from_angles(&angles, q.dims()[0], &device);
            passes(q, move |q| rotate(q, &table).sum())
        }
        Work::Attention => {
            let (q, k, v) = (leaf::<3>(&file, "q")?, leaf::<3>(&file, "k")?, leaf::<3>(&file, "v")?);
            let tokens = q.dims()[0];
            let rows = (0..tokens).step_by(ROW).map(|start| start..start + ROW);
            let blocks = rows.map(|row| AttentionBlock { queries: row.clone(), keys: row, is_causal: true });
            let plan = Arc::new(AttentionPlan::new(blocks.collect(), tokens, tokens));
            passes(q, move |q| attention(q, k.clone(), v.clone(), &plan).sum())
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
                got.expect("shapes that fit").sum()
            })
        }
        _ => return Err("not an operator".into()),
    })
}

/// Forward and backward again and again; the norm of a token's gradient, the last of a row.
fn passes<const D: usize>(leaf: Tensor<D>, forward: impl Fn(Tensor<D>) -> Tensor<1> + 'static) -> Worked {
    Box::new(move || {
        let mut norm = 0.0;
        for _ in 0..PASSES {
            let gradients = forward(leaf.clone()).backward();
            let gradient = leaf.grad(&gradients).ok_or("no gradient")?;
            norm = gradient.narrow(0, ROW - 1, 1).powi_scalar(2).sum().sqrt().into_scalar::<f32>();
        }
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

use burn::tensor::{Distribution, TensorData, Tolerance};

use super::*;
use crate::scalar;

const SHAPE: [usize; 4] = [3, 5, 8, 37]; // batch, seq, hidden, vocab

struct Inputs {
    hidden: Tensor<3>,
    weight: Tensor<2>,
    targets: Tensor<2, Int>,
    /// Arbitrary gradient of the log-probabilities.
    cotangent: Tensor<2>,
}

/// Random inputs, tracked leaves where the device has autodiff.
fn inputs(device: &Device) -> Inputs {
    let [batch, seq, width, vocab] = SHAPE;
    device.seed(7);
    let normal = Distribution::Normal(0.0, 1.0);
    let ids = Distribution::Uniform(0.0, vocab as f64);
    let hidden = Tensor::<3>::random([batch, seq, width], normal, device);
    let weight = Tensor::<2>::random([width, vocab], normal, device);
    let is_autodiff = device.is_autodiff();
    Inputs {
        hidden: if is_autodiff { hidden.require_grad() } else { hidden },
        weight: if is_autodiff { weight.require_grad() } else { weight },
        targets: Tensor::random([batch, seq], ids, device),
        cotangent: Tensor::random([batch, seq], normal, device),
    }
}

fn devices() -> [Device; 2] {
    let device = Device::flex().autodiff();
    [device.clone(), device.gradient_checkpointing()]
}

fn plain(inputs: &Inputs, weight: Tensor<2>, temperature: f64) -> Tensor<2> {
    let [batch, seq, width, vocab] = SHAPE;
    let hidden = inputs.hidden.clone().reshape([batch * seq, width]);
    let logits = hidden.matmul(weight) / temperature;
    gather_log_probs(logits.reshape([batch, seq, vocab]), inputs.targets.clone()).unwrap()
}

#[track_caller]
fn close<const D: usize>(got: Tensor<D>, expected: Tensor<D>, tolerance: f32) {
    let expected = expected.inner().into_data();
    got.inner().into_data().assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(tolerance, tolerance));
}

#[test]
fn equals_the_plain_composition_for_any_chunk() {
    for device in devices() {
        let inputs = inputs(&device);
        for (chunk_tokens, temperature) in [(1, 1.0), (4, 0.7), (15, 1.0), (64, 2.5)] {
            let fused = selective_log_probs(
                inputs.hidden.clone(),
                inputs.weight.clone(),
                inputs.targets.clone(),
                chunk_tokens,
                temperature,
            );
            let (fused, plain) = (fused.unwrap(), plain(&inputs, inputs.weight.clone(), temperature));
            close(fused.clone(), plain.clone(), 1e-5);
            let got = (fused * inputs.cotangent.clone()).sum().backward();
            let expected = (plain * inputs.cotangent.clone()).sum().backward();
            let (hidden, weight) = (&inputs.hidden, &inputs.weight);
            close(hidden.grad(&got).unwrap(), hidden.grad(&expected).unwrap(), 1e-4);
            close(weight.grad(&got).unwrap(), weight.grad(&expected).unwrap(), 1e-4);
        }
    }
}

#[test]
fn flex_runs_the_operator_with_and_without_autodiff() {
    assert!(has_operator(&Device::flex()));
    assert!(devices().iter().all(has_operator));
}

#[test]
fn the_composed_fallback_agrees() {
    let inputs = inputs(&Device::flex().autodiff());
    let [batch, seq, width, _] = SHAPE;
    let hidden = inputs.hidden.clone().reshape([batch * seq, width]);
    let targets = inputs.targets.clone().reshape([batch * seq]);
    let settings = settings(4, 0.7, true).unwrap();
    let fallback = composed(hidden, inputs.weight.clone(), targets, settings).reshape([batch, seq, 2]);
    close(fallback, plain_scores(&inputs, inputs.weight.clone(), 0.7), 1e-5);
}

/// `[batch, seq, 2]`: log-probabilities and entropies through logits of the whole vocabulary.
fn plain_scores(inputs: &Inputs, weight: Tensor<2>, temperature: f64) -> Tensor<3> {
    let [batch, seq, width, vocab] = SHAPE;
    let hidden = inputs.hidden.clone().reshape([batch * seq, width]);
    let logits = (hidden.matmul(weight) / temperature).reshape([batch, seq, vocab]);
    let scores = gather_scores(logits, inputs.targets.clone()).unwrap();
    Tensor::stack(vec![scores.log_probs, scores.entropy.unwrap()], 2)
}

#[test]
fn entropies_and_gradients_are_those_of_the_whole_vocabulary_for_any_block() {
    for device in devices() {
        let inputs = inputs(&device);
        let (hidden, weight) = (&inputs.hidden, &inputs.weight);
        let cotangent = Tensor::stack::<3>(vec![inputs.cotangent.clone(), inputs.cotangent.clone().sin()], 2);
        for (block_vocab, chunk_tokens, temperature) in [(1, 15, 1.0), (7, 4, 0.7), (36, 1, 2.0), (37, 4, 1.0)] {
            for columns in [1, 2] {
                let mut settings = settings(chunk_tokens, temperature, columns == 2).unwrap();
                settings.block_vocab = block_vocab;
                let (targets, cotangent) = (inputs.targets.clone(), cotangent.clone().narrow(2, 0, columns));
                let blocked = head_scores(hidden.clone(), weight.clone(), targets, settings).unwrap();
                let whole = plain_scores(&inputs, weight.clone(), temperature).narrow(2, 0, columns);
                close(blocked.clone(), whole.clone(), 1e-5);
                let got = (blocked * cotangent.clone()).sum().backward();
                let expected = (whole * cotangent).sum().backward();
                close(hidden.grad(&got).unwrap(), hidden.grad(&expected).unwrap(), 1e-4);
                close(weight.grad(&got).unwrap(), weight.grad(&expected).unwrap(), 1e-4);
            }
        }
    }
}

#[test]
fn an_entropy_without_its_log_prob_has_its_gradient() {
    let inputs = inputs(&Device::flex().autodiff());
    let (hidden, weight) = (&inputs.hidden, &inputs.weight);
    let scores = selective_scores(hidden.clone(), weight.clone(), inputs.targets.clone(), 4, 0.7).unwrap();
    let got = (scores.entropy.unwrap() * inputs.cotangent.clone()).sum().backward();
    let expected = plain_scores(&inputs, weight.clone(), 0.7).narrow(2, 1, 1).squeeze_dim(2);
    let expected = (expected * inputs.cotangent.clone()).sum().backward();
    close(hidden.grad(&got).unwrap(), hidden.grad(&expected).unwrap(), 1e-4);
    close(weight.grad(&got).unwrap(), weight.grad(&expected).unwrap(), 1e-4);
}

#[test]
fn scores_are_log_probs_and_entropies() {
    let inputs = inputs(&Device::flex().autodiff());
    let call = || (inputs.hidden.clone(), inputs.weight.clone(), inputs.targets.clone());
    let (hidden, weight, targets) = call();
    let scores = selective_scores(hidden, weight, targets, 4, 0.7).unwrap();
    let (hidden, weight, targets) = call();
    close(scores.log_probs, selective_log_probs(hidden, weight, targets, 4, 0.7).unwrap(), 1e-6);
    let expected = plain_scores(&inputs, inputs.weight.clone(), 0.7).narrow(2, 1, 1).squeeze_dim(2);
    close(scores.entropy.unwrap(), expected, 1e-5);
}

#[test]
fn a_transposed_embedding_receives_its_gradient() {
    let device = Device::flex().autodiff();
    let inputs = inputs(&device);
    let embedding = inputs.weight.clone().inner().transpose().autodiff().require_grad();
    assert_eq!(embedding.dims(), [SHAPE[3], SHAPE[2]]);
    let head = || embedding.clone().transpose();
    let (hidden, targets) = (inputs.hidden.clone(), inputs.targets.clone());
    let fused = selective_log_probs(hidden, head(), targets, 4, 1.0).unwrap();
    let got = (fused * inputs.cotangent.clone()).sum().backward();
    let expected = (plain(&inputs, head(), 1.0) * inputs.cotangent.clone()).sum().backward();
    close(embedding.grad(&got).unwrap(), embedding.grad(&expected).unwrap(), 1e-4);
    close(inputs.hidden.grad(&got).unwrap(), inputs.hidden.grad(&expected).unwrap(), 1e-4);
}

#[test]
fn a_frozen_side_is_a_constant() {
    let device = Device::flex().autodiff();
    let inputs = inputs(&device);
    let (hidden, weight) = (inputs.hidden.clone(), inputs.weight.clone());
    let score = |hidden: Tensor<3>, weight: Tensor<2>| {
        let targets = inputs.targets.clone().inner();
        selective_log_probs(hidden, weight, targets, 4, 1.0).unwrap()
    };
    // Frozen head, as with LoRA: the weight is a plain tensor of `model.valid()`.
    let grads = score(hidden.clone(), weight.clone().inner()).sum().backward();
    assert!(hidden.grad(&grads).is_some());
    assert!(weight.grad(&grads).is_none());
    let grads = score(hidden.clone().inner(), weight.clone()).sum().backward();
    assert!(hidden.grad(&grads).is_none());
    assert!(weight.grad(&grads).is_some());
    assert!(!score(hidden.inner(), weight.inner()).is_tracked());
}

#[test]
fn a_nan_state_without_gradient_changes_no_gradient() {
    let device = Device::flex().autodiff();
    let inputs = inputs(&device);
    let [batch, seq, width, _] = SHAPE;
    let mask: Tensor<2, Bool> = inputs.cotangent.clone().greater_elem(0.3).inner();
    let wide = mask.clone().unsqueeze_dim::<3>(2).expand([batch, seq, width]);
    let score = |hidden: Tensor<3>| {
        let (weight, targets) = (inputs.weight.clone(), inputs.targets.clone());
        let TokenScores { log_probs, entropy } = selective_scores(hidden, weight, targets, 4, 1.0).unwrap();
        let clean = |scores: Tensor<2>| scores.mask_fill(mask.clone(), 0.0);
        (clean(log_probs) + clean(entropy.unwrap()).sin()).sum()
    };
    let clean = inputs.hidden.clone();
    let poisoned = clean.clone().inner().mask_fill(wide.clone(), f32::NAN).autodiff().require_grad();
    let (loss, poisoned_loss) = (score(clean.clone()), score(poisoned.clone()));
    close(poisoned_loss.clone(), loss.clone(), 1e-6);
    let (expected, got) = (loss.backward(), poisoned_loss.backward());
    close(inputs.weight.grad(&got).unwrap(), inputs.weight.grad(&expected).unwrap(), 1e-6);
    let hidden = poisoned.grad(&got).unwrap();
    close(hidden.clone(), clean.grad(&expected).unwrap(), 1e-6);
    let largest = hidden.mask_fill(wide.bool_not(), 0.0).abs().max();
    assert_eq!(largest.into_scalar::<f32>(), 0.0);
}

#[test]
fn extreme_logits_equal_the_scalar_twin() {
    let device = Device::flex();
    let logits = [[1e4f32, -1e4, 9990.0, 9999.5], [-300.0, -301.0, -500.0, -299.0]];
    let identity = Tensor::<2>::eye(4, &device);
    let hidden = Tensor::<2>::from_floats(logits, &device).unsqueeze_dim::<3>(0);
    let targets = Tensor::<2, Int>::from_ints([[3, 0]], &device);
    let mut blocks = settings(1, 2.0, true).unwrap();
    blocks.block_vocab = 3;
    let blocked = head_scores(hidden.clone(), identity.clone(), targets.clone(), blocks).unwrap();
    let blocked = [0, 1].map(|at| blocked.clone().narrow(2, at, 1).squeeze_dim::<2>(2));
    let fused = selective_scores(hidden.clone(), identity, targets.clone(), 1, 2.0).unwrap();
    let gathered = gather_scores(hidden.clone() / 2.0, targets.clone()).unwrap();
    let both = |scores: TokenScores| [scores.log_probs, scores.entropy.unwrap()];
    let log_probs = gather_log_probs(hidden / 2.0, targets).unwrap();
    close(log_probs, gathered.log_probs.clone(), 0.0);
    for [log_probs, entropies] in [both(fused), both(gathered), blocked] {
        let values = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().unwrap();
        for (i, (log_prob, entropy)) in values(log_probs).into_iter().zip(values(entropies)).enumerate() {
            let row: Vec<f64> = logits[i].iter().map(|&x| f64::from(x)).collect();
            let expected = scalar::log_prob(&row, [3, 0][i], 2.0);
            assert!((f64::from(log_prob) - expected).abs() < 1e-3, "{log_prob} {expected}");
            let expected = scalar::entropy(&row, 2.0);
            assert!((f64::from(entropy) - expected).abs() < 1e-3, "{entropy} {expected}");
        }
    }
}

#[test]
fn exp_sums_to_one_over_the_vocabulary() {
    let device = Device::flex();
    let inputs = inputs(&device);
    let hidden = inputs.hidden.slice([0..1, 0..1]).repeat(&[1, SHAPE[3], 1]);
    let targets = Tensor::<1, Int>::arange(0..SHAPE[3] as i64, &device).unsqueeze_dim::<2>(0);
    let log_probs = selective_log_probs(hidden, inputs.weight, targets, 5, 1.3).unwrap();
    let total = log_probs.exp().sum().into_scalar::<f32>();
    assert!((total - 1.0).abs() < 1e-5, "{total}");
}

#[test]
fn half_precision_logits_give_f32_log_probs_and_typed_gradients() {
    let inputs = inputs(&Device::flex().autodiff());
    let hidden = inputs.hidden.clone().inner().cast(DType::BF16).autodiff().require_grad();
    let weight = inputs.weight.clone().inner().cast(DType::BF16).autodiff().require_grad();
    let targets = inputs.targets.clone();
    let fused = selective_log_probs(hidden.clone(), weight.clone(), targets, 4, 1.0).unwrap();
    assert_eq!(fused.dtype(), DType::F32);
    close(fused.clone(), plain(&inputs, inputs.weight.clone(), 1.0), 0.1);
    let grads = fused.sum().backward();
    assert_eq!(hidden.grad(&grads).unwrap().dtype(), DType::BF16);
    assert_eq!(weight.grad(&grads).unwrap().dtype(), DType::BF16);
}

#[test]
fn wrong_arguments_are_errors_and_no_token_is_fine() {
    let device = Device::flex();
    let Inputs { hidden, weight, targets, .. } = inputs(&device);
    let call = |weight: &Tensor<2>, targets: &Tensor<2, Int>, chunk, temperature| {
        let (weight, targets) = (weight.clone(), targets.clone());
        selective_log_probs(hidden.clone(), weight, targets, chunk, temperature).err()
    };
    let message = |error: Option<GrpoError>| error.unwrap().to_string();
    let turned = weight.clone().transpose();
    assert!(message(call(&turned, &targets, 4, 1.0)).starts_with("head_weight"));
    let narrow = targets.clone().narrow(0, 0, 2);
    assert!(message(call(&weight, &narrow, 4, 1.0)).starts_with("targets"));
    assert!(message(call(&weight, &targets, 0, 1.0)).contains("chunk_tokens"));
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(message(call(&weight, &targets, 4, temperature)).contains("temperature"));
    }
    let logits = Tensor::<3>::zeros([2, 5, 7], &device);
    assert!(gather_log_probs(logits, targets.clone()).is_err());
    assert!(gather_scores(Tensor::<3>::zeros([2, 5, 7], &device), targets.clone()).is_err());
    let no_vocabulary = Tensor::<2>::zeros([SHAPE[2], 0], &device);
    assert!(message(call(&no_vocabulary, &targets, 4, 1.0)).contains("vocabulary"));
    let empty = Tensor::<3>::zeros([3, 0, SHAPE[2]], &device);
    let none = selective_log_probs(empty, weight, targets.slice([0..3, 0..0]), 4, 1.0);
    assert_eq!(none.unwrap().dims(), [3, 0]);
}

#[test]
fn a_target_outside_the_vocabulary_is_nan_and_has_no_gradient() {
    let device = Device::flex().autodiff();
    let inputs = inputs(&device);
    let [batch, seq, width, vocab] = SHAPE;
    for outside in [-100, vocab as i64] {
        let targets = inputs.targets.clone().slice_assign([0..1, 0..1], Tensor::full([1, 1], outside, &device));
        for block_vocab in [7, BLOCK_VOCAB] {
            let mut settings = settings(4, 1.0, false).unwrap();
            settings.block_vocab = block_vocab;
            let (hidden, weight) = (inputs.hidden.clone(), inputs.weight.clone());
            let scores: Tensor<2> = head_scores(hidden, weight, targets.clone(), settings).unwrap().squeeze_dim(2);
            let is_nan: Vec<bool> = scores.clone().is_nan().into_data().iter::<bool>().collect();
            assert_eq!(is_nan.iter().position(|&nan| nan), Some(0));
            assert_eq!(is_nan.iter().filter(|&&nan| nan).count(), 1);
            // Under a completion mask that leaves it out.
            let gradients = scores.slice([0..batch, 1..seq]).sum().backward();
            let of_first = inputs.hidden.grad(&gradients).unwrap().slice([0..1, 0..1, 0..width]);
            assert_eq!(of_first.abs().max().into_scalar::<f32>(), 0.0);
            assert!(inputs.weight.grad(&gradients).unwrap().is_nan().into_data().iter::<bool>().all(|nan| !nan));
        }
        let logits = Tensor::<3>::ones([batch, seq, vocab], &Device::flex());
        let gathered = gather_log_probs(logits.clone(), targets.clone().inner()).unwrap();
        let with_entropy = gather_scores(logits, targets.clone().inner()).unwrap().log_probs;
        for scores in [gathered, with_entropy] {
            let values: Vec<f32> = scores.into_data().iter::<f32>().collect();
            assert!(values[0].is_nan() && values[1..].iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn a_quantised_head_scores_as_its_floats() {
    let device = Device::flex().autodiff();
    let wave = |count: usize, scale: f32| (0..count).map(|i| (i as f32 * scale).sin()).collect::<Vec<f32>>();
    let tensor = |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &device);
    let weight = ril_kernels::to_int8(tensor(wave(16 * 5000, 0.7), [16, 5000])).unwrap();
    let targets = Tensor::<2, Int>::from_data([[0, 17, 4999, 300, 5000, 1, 2]], &device);
    let run = |weight: Tensor<2>| {
        let hidden = tensor(wave(7 * 16, 0.3), [7, 16]).require_grad();
        let scores = selective_scores(hidden.clone().unsqueeze(), weight, targets.clone(), 3, 0.8).unwrap();
        let both = Tensor::cat(vec![scores.log_probs, scores.entropy.unwrap()], 0);
        let kept = both.clone().mask_fill(both.clone().is_nan(), 0.0);
        let gradients = kept.clone().sum().backward();
        [kept, hidden.grad(&gradients).unwrap()].map(|t| t.into_data().iter::<f32>().collect::<Vec<f32>>())
    };
    for (got, want) in run(weight.clone()).iter().flatten().zip(run(weight.dequantize()).iter().flatten()) {
        assert!((got - want).abs() < 1e-4, "{got} {want}");
    }
}

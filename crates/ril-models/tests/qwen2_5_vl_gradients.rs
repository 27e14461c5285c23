//! The gradient of a policy loss through decoder and vision tower is torch's.

mod common;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData, activation};
use common::{Batch, Fixture, values};
use ril_models::{CausalLm, ModelInput, Padding, Qwen2_5Vl, TokenBatch};

/// Largest accepted difference, relative to the reference's norm and to its largest value.
const TOLERANCE: f64 = 1e-4;

#[test]
fn the_loss_and_its_gradients_equal_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex().autodiff());
        let loss = policy_loss(&model, &fixture);
        let value = loss.clone().into_scalar::<f32>();
        let want = fixture.golden.batch.loss;
        println!("{}: loss {value} against {want}", fixture.name);
        assert!((value - want).abs() <= 1e-5 * want.abs().max(1.0), "{}: {value} {want}", fixture.name);
        let gradients = gradients_by_name(&model, &loss.backward());
        for name in &fixture.golden.batch.gradients {
            compare(&fixture, name, gradients.get(name).unwrap_or_else(|| panic!("no gradient of {name}")));
        }
    }
}

#[test]
fn every_parameter_has_a_gradient() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex().autodiff());
        let gradients = gradients_by_name(&model, &policy_loss(&model, &fixture).backward());
        for name in common::read_checkpoint(&fixture.folder).keys() {
            let gradient = gradients.get(name).unwrap_or_else(|| panic!("{}: no gradient of {name}", fixture.name));
            assert!(norm(&gradient.1) > 1e-6, "{}: {name}", fixture.name);
        }
    }
}

/// Rows behind one prompt with a picture, which is computed once for all of them.
#[test]
fn gradients_of_rows_that_share_a_prompt_are_the_sum_of_those_alone() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex().autodiff());
        let case = fixture.golden.cases.values().find(|case| case.images.len() == 1).unwrap();
        let prompt = [case.prompt_ids.clone(), (0..40).collect()].concat();
        let gradients = |responses: &[Vec<u32>]| {
            let rows: Vec<Vec<u32>> = responses.iter().map(|ids| [prompt.as_slice(), ids].concat()).collect();
            let tokens = TokenBatch::padded(&rows, fixture.golden.pad_id, Padding::Right);
            let mask: Vec<f32> = tokens.mask().iter().map(|&is_real| f32::from(u8::from(is_real))).collect();
            let mask = Tensor::<3>::from_data(TensorData::new(mask, [rows.len(), tokens.seq(), 1]), &Device::flex());
            let placements = vec![0; rows.len()];
            let input = ModelInput { tokens, images: fixture.images(&case.images), placements };
            let hidden = model.hidden_states(&input, None).unwrap();
            let [_, seq, width] = hidden.dims();
            let pull: Vec<f32> = (0..seq * width).map(|i| (i as f32 * 0.71).sin()).collect();
            let pull = Tensor::<3>::from_data(TensorData::new(pull, [1, seq, width]), &Device::flex());
            gradients_by_name(&model, &(hidden * pull * mask).sum().backward())
        };
        let responses = [vec![1, 2, 3, 4, 5], vec![1, 2, 9], vec![7]];
        let alone = responses.each_ref().map(|ids| gradients(std::slice::from_ref(ids)));
        for (name, (_, got)) in gradients(&responses) {
            let sum = |i: usize| alone.iter().map(|by_name| by_name[&name].1[i]).sum::<f32>();
            let want: Vec<f32> = (0..got.len()).map(sum).collect();
            let difference: Vec<f32> = got.iter().zip(&want).map(|(got, want)| got - want).collect();
            let share = norm(&difference) / norm(&want);
            assert!(share <= TOLERANCE, "{}: {name}: {share:e}", fixture.name);
        }
    }
}

/// The clipped surrogate with a k3 penalty, summed over tokens and divided by rows times a constant length.
fn policy_loss(model: &Qwen2_5Vl, fixture: &Fixture) -> Tensor<1> {
    let batch = &fixture.golden.batch;
    let responses = fixture.batch_responses();
    let (rows, len, seq) = (responses.rows(), responses.seq(), batch.ids[0].len());
    let device = Device::flex();
    let constant = |name: &str| {
        let data = TensorData::new(fixture.tensor(name).to_vec(), [rows, len]);
        Tensor::<2>::from_data(data, &device)
    };
    let hidden = model.hidden_states(&fixture.batch(), None).unwrap();
    let predicting = hidden.narrow(1, batch.prompt_len - 1, seq - batch.prompt_len);
    let ids: Vec<i64> = responses.ids().iter().map(|&id| i64::from(id)).collect();
    let ids = Tensor::<3, Int>::from_data(TensorData::new(ids, [rows, len, 1]), &device);
    let log_probs = activation::log_softmax(model.lm_head(predicting), 2).gather(2, ids).squeeze_dim::<2>(2);
    let mask: Vec<f32> = responses.mask().iter().map(|&m| f32::from(u8::from(m))).collect();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [rows, len]), &device);
    // Padding holds log-probs of padding tokens: finite here, and replaced before exp as a trainer would.
    let log_probs = log_probs * mask.clone();
    let (old, reference) = (constant("batch.old_log_probs"), constant("batch.ref_log_probs"));
    surrogate(log_probs, old, reference, batch, mask)
}

fn surrogate(log_probs: Tensor<2>, old: Tensor<2>, reference: Tensor<2>, batch: &Batch, mask: Tensor<2>) -> Tensor<1> {
    let rows = batch.advantages.len();
    let advantages = TensorData::new(batch.advantages.clone(), [rows, 1]);
    let advantages = Tensor::<2>::from_data(advantages, &Device::flex());
    let ratio = (log_probs.clone() - old).exp();
    let clipped = ratio.clone().clamp(1.0 - batch.epsilon, 1.0 + batch.epsilon) * advantages.clone();
    let unclipped = ratio * advantages;
    let log_ratio = reference - log_probs;
    let k3 = log_ratio.clone().exp() - log_ratio - 1.0;
    let per_token = k3 * batch.beta - unclipped.min_pair(clipped);
    (per_token * mask).sum() / (rows * batch.max_completion_len) as f64
}

fn compare(fixture: &Fixture, name: &str, (shape, got): &(Vec<usize>, Vec<f32>)) {
    let key = format!("gradient.{name}");
    let want = fixture.tensor(&key);
    // Kernels are compared flat: the patch embedding is a product here and a convolution there.
    let flat: Vec<usize> = match fixture.shape(&key) {
        [out, kernel @ ..] if kernel.len() > 1 => vec![*out, kernel.iter().product()],
        shape => shape.to_vec(),
    };
    assert_eq!(shape, &flat, "{}: {name}", fixture.name);
    let difference: Vec<f32> = got.iter().zip(want).map(|(a, b)| a - b).collect();
    let largest = |v: &[f32]| f64::from(v.iter().fold(0.0_f32, |m, x| m.max(x.abs())));
    let by_norm = norm(&difference) / norm(want);
    let by_max = largest(&difference) / largest(want);
    println!("{}: gradient of {name}: norm {by_norm:.2e}, max {by_max:.2e}", fixture.name);
    assert!(by_norm <= TOLERANCE && by_max <= TOLERANCE, "{}: {name}: {by_norm:e} {by_max:e}", fixture.name);
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

type ByName = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Gradients under the checkpoint's names and in its layout.
fn gradients_by_name(model: &Qwen2_5Vl, gradients: &Gradients) -> ByName {
    let mut collector = Collector { gradients, path: Vec::new(), owners: Vec::new(), found: ByName::new() };
    model.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    gradients: &'a Gradients,
    path: Vec<String>,
    owners: Vec<String>,
    found: ByName,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(mut gradient) = param.val().grad(self.gradients) else { return };
        if D == 2 && self.owners.last().is_some_and(|owner| owner == "Struct:Linear") {
            gradient = gradient.swap_dims(0, 1);
        }
        let name = self.path.join(".").replace("merger.fc1.", "merger.mlp.0.").replace("merger.fc2.", "merger.mlp.2.");
        self.found.insert(name, (gradient.dims().to_vec(), values(gradient)));
    }

    fn enter_module(&mut self, name: &str, owner: &str) {
        self.path.push(name.to_owned());
        self.owners.push(owner.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _owner: &str) {
        self.path.pop();
        self.owners.pop();
    }
}

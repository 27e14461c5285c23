//! A model with weights of 8 bits: it computes with the rounded weights, and is never saved.

mod common;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use common::{Fixture, logits};
use ril_models::checkpoint::WeightType;
use ril_models::generate::{SamplingParams, generate};
use ril_models::{CausalLm, ModelError};

/// Rounded weights as floats.
struct Dequantize;

impl ModuleMapper for Dequantize {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(Tensor::dequantize)
    }
}

#[test]
fn it_computes_what_the_rounded_weights_give() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let int8 = model.clone().into_int8();
        let rounded = int8.clone().map(&mut Dequantize);
        let difference = |a: Tensor<2>, b: Tensor<2>| (a - b).abs().max().into_scalar::<f32>();
        let moved = difference(rounded.head_weight(), model.head_weight());
        let largest = model.head_weight().abs().max().into_scalar::<f32>();
        assert!(moved > 0.0 && moved <= largest / 254.0 * 1.001, "{}: {moved} of {largest}", fixture.name);
        for case in fixture.golden.cases.values() {
            let (got, want) = (logits(&int8, &fixture.input(case)), logits(&rounded, &fixture.input(case)));
            for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
                assert!((got - want).abs() < 1e-4, "{}: {got} {want}", fixture.name);
            }
        }
        let drawn = |model| generate(model, &fixture.batch_prompts(), &SamplingParams::greedy(8)).unwrap();
        for (got, want) in drawn(&int8).iter().zip(drawn(&rounded)) {
            assert_eq!(got.token_ids, want.token_ids, "{}", fixture.name);
        }
    }
}

#[test]
fn it_is_not_saved() {
    let model = Fixture::open("flat").model(&Device::flex());
    let folder = tempfile::tempdir().unwrap();
    let error = model.clone().into_int8().save(folder.path(), WeightType::F32).unwrap_err();
    assert!(matches!(&error, ModelError::Quantized { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    model.save(folder.path(), WeightType::F32).unwrap();
}

//! Results are the same to the bit whatever the number of threads.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use ril_kernels::{AttentionPlan, attention, linear, rms_norm, swiglu, to_int8};

fn scattered<const D: usize>(shape: [usize; D], salt: f32) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.71 + salt).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    tensor.into_data().iter::<f32>().map(f32::to_bits).collect()
}

/// Values of operators and gradients of their operands.
fn results() -> Vec<Vec<u32>> {
    let mut results = Vec::new();
    for rows in [1, 2, 3, 7, 33, 140] {
        for is_tied in [false, true] {
            let (x, bias) = (scattered([rows, 328], 0.3), scattered::<1>([600], 1.9));
            let stored = scattered(if is_tied { [600, 328] } else { [328, 600] }, 1.1);
            let weight = if is_tied { stored.clone().transpose() } else { stored.clone() };
            let int8 = to_int8(weight.clone().inner()).expect("a block");
            let out = linear(x.clone(), weight, Some(bias.clone()));
            let gradients = (out.clone() * out.clone()).sum().backward();
            results.extend([out.inner(), linear(x.clone().inner(), int8, None)].map(bits));
            results.extend([&x, &stored].map(|leaf| bits(leaf.grad(&gradients).expect("a gradient"))));
            results.push(bits(bias.grad(&gradients).expect("a gradient")));
        }
    }
    let plan = Arc::new(AttentionPlan::causal_rows(&[300, 70, 5]));
    let [q, k, v] = [scattered([375, 6, 16], 0.1), scattered([375, 2, 16], 1.2), scattered([375, 2, 16], 2.3)];
    let out = attention(q.clone(), k.clone(), v.clone(), &plan);
    let gradients = (out.clone() * out.clone()).sum().backward();
    results.push(bits(out.inner()));
    results.extend([q, k, v].map(|leaf| bits(leaf.grad(&gradients).expect("a gradient"))));
    let (x, gain) = (scattered([700, 96], 0.4), scattered::<1>([96], 2.0));
    let out = swiglu(rms_norm(x.clone(), gain.clone(), 1e-6), x.clone());
    let gradients = (out.clone() * out.clone()).sum().backward();
    results.extend([out.inner(), x.grad(&gradients).expect("a gradient")].map(bits));
    results.push(bits(gain.grad(&gradients).expect("a gradient")));
    results
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let with =
        |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(results);
    let one = with(1);
    for threads in [2, 5] {
        for (at, (got, want)) in with(threads).iter().zip(&one).enumerate() {
            assert_eq!(got, want, "result {at} with {threads} threads");
        }
    }
}

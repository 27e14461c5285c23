//! Buffers of Burn's CPU backend, read as slices and built without a second pass over memory.
#![allow(unsafe_code)] // Buffers whose every element is written before it is read are not zeroed first.

use std::mem::MaybeUninit;

use burn::backend::DispatchDevice;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use rayon::prelude::*;

/// Elements that are worth a task of their own.
pub const GRAIN: usize = 16 * 1024;

/// Whether the fused path takes a tensor: Flex, with or without autodiff, in `f32`.
#[must_use]
pub fn is_fused<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && is_flex(&tensor.device())
}

/// Whether a device is Burn's CPU backend, with or without autodiff.
#[must_use]
pub fn is_flex(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The same values in row-major order. Takes the tensor: a handle that stays would make a later write copy.
#[must_use]
pub fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The values of a contiguous `f32` tensor.
///
/// # Panics
/// If it is not contiguous or not `f32`.
#[must_use]
pub fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("a contiguous f32 tensor")
}

/// The values of a contiguous `f32` tensor, to be changed in place; copied first if another handle holds them.
///
/// # Panics
/// If it is not contiguous or not `f32`.
pub fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("a contiguous tensor");
    &mut tensor.storage_mut::<f32>()[start..end]
}

/// A tensor over `values`, without a copy.
#[must_use]
pub fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Length of the last axis.
#[must_use]
pub fn width(tensor: &FlexTensor) -> usize {
    tensor.layout().shape().iter().next_back().copied().unwrap_or(1)
}

/// `length` values, written row by row, in parallel where that pays: `fill(i, row)` gets rows of `width`, the last of
/// which may be shorter.
///
/// # Safety
/// `fill` must write every element that it is given.
pub unsafe fn build(length: usize, width: usize, fill: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(length);
    let fresh = &mut values.spare_capacity_mut()[..length];
    if length <= GRAIN {
        fresh.chunks_mut(width.max(1)).enumerate().for_each(|(i, row)| fill(i, row));
    } else {
        let rows = fresh.par_chunks_mut(width.max(1)).with_min_len(GRAIN.div_ceil(width.max(1)));
        rows.enumerate().for_each(|(i, row)| fill(i, row));
    }
    // SAFETY: the capacity is `length`, and the caller wrote every element.
    unsafe { values.set_len(length) };
    values
}

/// `rows` rows of `width` in fresh memory, on all threads: `fill(i, row)` gets numbers of any kind and must write over them.
/// Large memory is written once, where zeros first and a row later would be twice.
pub fn fresh_rows(rows: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(rows * width);
    let fresh = &mut values.spare_capacity_mut()[..rows * width];
    let chunks = fresh.par_chunks_mut(width.max(1)).with_min_len(GRAIN.div_ceil(width.max(1)));
    chunks.enumerate().for_each_init(
        || vec![0.0; width],
        |row, (i, out)| {
            fill(i, row);
            out.write_copy_of_slice(row);
        },
    );
    // SAFETY: every row was copied.
    unsafe { values.set_len(rows * width) };
    values
}

/// Runs `f(i, row)` over rows of `width`, in parallel where that pays.
pub fn for_rows(values: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if values.len() <= GRAIN {
        values.chunks_mut(width.max(1)).enumerate().for_each(|(i, row)| f(i, row));
    } else {
        let rows = values.par_chunks_mut(width.max(1)).with_min_len(GRAIN.div_ceil(width.max(1)));
        rows.enumerate().for_each(|(i, row)| f(i, row));
    }
}

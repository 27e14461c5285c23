//! New rows into a buffer.

use std::sync::Arc;

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::flex::{contiguous, is_fused, values, values_mut};

/// Puts row `i` of `rows` into row `places[i]` of `buffer`, in place if nothing else holds the buffer. Not
/// differentiable.
///
/// # Shapes
/// `buffer`: `[slots, heads, head_dim]`, `rows`: `[places, heads, head_dim]`; output as `buffer`.
///
/// # Panics
/// If a place is outside the buffer, or `rows` has another shape.
#[must_use]
pub fn write_rows(buffer: Tensor<3>, rows: Tensor<3>, places: &Arc<Vec<usize>>) -> Tensor<3> {
    let [slots, heads, dim] = buffer.dims();
    assert_eq!(rows.dims(), [places.len(), heads, dim], "write_rows: rows for a buffer of [_, {heads}, {dim}]");
    assert!(places.iter().all(|&place| place < slots), "write_rows: a place outside the buffer's {slots} rows");
    if is_fused(&buffer) && is_fused(&rows) {
        let (buffer, rows) = (buffer.into_dispatch(), rows.into_dispatch());
        return Tensor::from_dispatch(Dispatch::write_rows(buffer, rows, places.clone()));
    }
    let ids = index(places.iter().map(|&place| place as i64).collect(), &buffer.device());
    buffer.detach().select_assign(0, ids, rows.detach(), IndexingUpdateOp::Assign)
}

/// Row numbers on a device.
pub(crate) fn index(ids: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let length = ids.len();
    Tensor::from_data(TensorData::new(ids, [length]), &device.clone().inner())
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait WriteRowsOps: Backend {
    fn write_rows(buffer: FloatTensor<Self>, rows: FloatTensor<Self>, places: Arc<Vec<usize>>) -> FloatTensor<Self>;
}

impl WriteRowsOps for Flex {
    fn write_rows(buffer: FloatTensor<Self>, rows: FloatTensor<Self>, places: Arc<Vec<usize>>) -> FloatTensor<Self> {
        let (mut buffer, rows) = (contiguous(buffer), contiguous(rows));
        let [_, heads, dim] = rows.shape().dims();
        let width = heads * dim;
        let slots = values_mut(&mut buffer);
        for (row, &place) in values(&rows).chunks_exact(width.max(1)).zip(places.iter()) {
            slots[place * width..(place + 1) * width].copy_from_slice(row);
        }
        buffer
    }
}

impl<C: CheckpointStrategy> WriteRowsOps for Autodiff<Flex, C> {
    fn write_rows(buffer: FloatTensor<Self>, rows: FloatTensor<Self>, places: Arc<Vec<usize>>) -> FloatTensor<Self> {
        let plain = Flex::write_rows(buffer.into_primitive(), rows.into_primitive(), places);
        crate::tape::constant::<C>(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{scattered, values};

    #[test]
    fn rows_land_in_their_places() {
        let device = Device::flex();
        let rows = scattered([2, 3, 4], 0.3, &device);
        let buffer = Tensor::<3>::zeros([5, 3, 4], &device);
        let kept = buffer.clone();
        let got = write_rows(buffer, rows.clone(), &Arc::new(vec![4, 1]));
        let row = |tensor: &Tensor<3>, at: usize| values(&tensor.clone().narrow(0, at, 1));
        assert_eq!([row(&got, 4), row(&got, 1)], [row(&rows, 0), row(&rows, 1)]);
        assert!([0, 2, 3].into_iter().all(|at| row(&got, at).iter().all(|&v| v == 0.0)));
        assert!(values(&kept).iter().all(|&v| v == 0.0), "another handle must not see the change");
    }
}

use std::error::Error;

use burn::tensor::Tensor;

/// Tells student text from teacher text.
///
/// # Sign
/// A **high logit means student**: Eq. 1 of RIL (arXiv 2510.19307) drives `D` to 1 on student responses and to 0 on
/// teacher responses. (The paper's text says the opposite once; Eq. 1 and Fig. 3 agree.)
pub trait Discriminator {
    /// What the model needs to judge a batch of responses (ids, masks, pixels); opaque to this crate.
    type Input;
    /// The model's own error.
    type Error: Error + Send + Sync + 'static;

    /// One logit per response, `[batch]`; `sigmoid(logit)` = P(written by the student).
    ///
    /// Differentiable on a trainable model. Ask a `valid()` view when no backward pass follows: the graph of a forward
    /// pass without one is kept in memory.
    ///
    /// # Errors
    /// The model's own.
    fn logits_student_is_high(&self, input: &Self::Input) -> Result<Tensor<1>, Self::Error>;

    /// Squared norm of the gradient of a logit with respect to the encoder's output, `[1]`, differentiable with respect
    /// to the parameters; `None`, the default, where it depends on the row.
    ///
    /// Behind a linear scalar head it is the squared norm of the head's weight. Needed for a
    /// [`GradientPenalty`](crate::GradientPenalty) alone.
    fn encoder_gradient_norm_squared(&self) -> Option<Tensor<1>> {
        None
    }
}

/// Any model that turns a batch of texts into hidden states; with a [`ScalarHead`](crate::ScalarHead) on top it is a
/// discriminator ([`LlmDiscriminator`](crate::LlmDiscriminator)).
pub trait SequenceEncoder {
    /// What the encoder needs (ids, masks, pixels); opaque to this crate.
    type Input;
    /// The encoder's own error.
    type Error: Error + Send + Sync + 'static;

    /// Hidden states of the last layer, final norm applied, `[batch, seq, hidden]`. Values at padding are unspecified
    /// (may be NaN).
    ///
    /// # Errors
    /// The encoder's own.
    fn encode(&self, input: &Self::Input) -> Result<Tensor<3>, Self::Error>;

    /// Position of each row's last valid (not padding) token, `[batch]`, each less than `seq`.
    fn last_valid_positions(&self, input: &Self::Input) -> Vec<usize>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: Discriminator + ?Sized> Discriminator for $pointer {
            type Input = T::Input;
            type Error = T::Error;

            fn logits_student_is_high(&self, input: &Self::Input) -> Result<Tensor<1>, Self::Error> {
                (**self).logits_student_is_high(input)
            }

            fn encoder_gradient_norm_squared(&self) -> Option<Tensor<1>> {
                (**self).encoder_gradient_norm_squared()
            }
        }

        impl<T: SequenceEncoder + ?Sized> SequenceEncoder for $pointer {
            type Input = T::Input;
            type Error = T::Error;

            fn encode(&self, input: &Self::Input) -> Result<Tensor<3>, Self::Error> {
                (**self).encode(input)
            }

            fn last_valid_positions(&self, input: &Self::Input) -> Vec<usize> {
                (**self).last_valid_positions(input)
            }
        }
    )*};
}

forward!(&T, Box<T>);

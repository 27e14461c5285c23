//! The one trait a model implements to be trained by this crate.

use burn::tensor::Tensor;

/// What a policy says of each completion token.
#[derive(Debug, Clone)]
pub struct TokenScores {
    /// Log-probability, `[batch, seq]`, nats, differentiable.
    pub log_probs: Tensor<2>,
    /// Entropy of the distribution that the token was drawn from, `[batch, seq]`, nats, differentiable where an
    /// entropy bonus is asked for; `None` if it was not computed.
    pub entropy: Option<Tensor<2>>,
}

impl From<Tensor<2>> for TokenScores {
    fn from(log_probs: Tensor<2>) -> Self {
        Self { log_probs, entropy: None }
    }
}

/// Scores completions token by token.
///
/// Optimizers, gradient accumulation and files stay with the caller; [`selective_log_probs`](crate::selective_log_probs)
/// and [`gather_log_probs`](crate::gather_log_probs) help to write an implementation.
pub trait Policy {
    /// What the model needs to score a batch (ids, masks, pixels); opaque to this crate.
    type Input;
    /// What can go wrong in the model.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Log-probability of each completion token, `[batch, seq]`, nats, differentiable.
    /// Values where `completion_mask` is false are unspecified (may be NaN).
    ///
    /// # Errors
    /// Whatever the model reports.
    fn token_log_probs(&self, input: &Self::Input) -> Result<Tensor<2>, Self::Error>;

    /// As [`Policy::token_log_probs`], with entropies if the model can give them; by default it gives none.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn token_scores(&self, input: &Self::Input) -> Result<TokenScores, Self::Error> {
        self.token_log_probs(input).map(TokenScores::from)
    }
}

impl<P: Policy + ?Sized> Policy for &P {
    type Input = P::Input;
    type Error = P::Error;

    fn token_log_probs(&self, input: &Self::Input) -> Result<Tensor<2>, Self::Error> {
        (**self).token_log_probs(input)
    }

    fn token_scores(&self, input: &Self::Input) -> Result<TokenScores, Self::Error> {
        (**self).token_scores(input)
    }
}

impl<P: Policy + ?Sized> Policy for Box<P> {
    type Input = P::Input;
    type Error = P::Error;

    fn token_log_probs(&self, input: &Self::Input) -> Result<Tensor<2>, Self::Error> {
        (**self).token_log_probs(input)
    }

    fn token_scores(&self, input: &Self::Input) -> Result<TokenScores, Self::Error> {
        (**self).token_scores(input)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    struct Constant;

    impl Policy for Constant {
        type Input = Device;
        type Error = std::convert::Infallible;

        fn token_log_probs(&self, device: &Device) -> Result<Tensor<2>, Self::Error> {
            Ok(Tensor::full([1, 2], -1.0, device))
        }
    }

    fn width<P: Policy<Input = Device>>(policy: P) -> usize {
        policy.token_log_probs(&Device::flex()).unwrap().dims()[1]
    }

    #[test]
    fn references_and_boxes_are_policies() {
        type Dynamic = dyn Policy<Input = Device, Error = std::convert::Infallible>;
        assert_eq!(width(&Constant), 2);
        assert_eq!(width(Box::new(Constant)), 2);
        let dynamic: Box<Dynamic> = Box::new(Constant);
        assert_eq!(width(dynamic), 2);
    }
}

//! The family of losses against TRL, verl and Trinity-RFT. Fixtures: `scripts/reference/{trl_family,verl_grpo,trinity_chord}.py`.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use ril_grpo::{
    AdaptiveEntropy, AdvantageEstimator, ClipRange, CompletionMetrics, EntropyController, GammaShape, GrpoConfig,
    KlEstimator, KlGradient, LossAggregation, PolicyBatch, PolicySummary, RatioLevel, RewardColumn, RewardMetrics,
    RewardScale, RowRole, SamplerBound, SamplerCorrection, SamplerLevel, SftTerm, SftTokenWeight, Surrogate,
    TokenScores, normalize_then_sum, policy_loss, soft_overlong_penalty, sum_rewards,
};
use serde_json::Value;

const MAX_COMPLETION_LEN: usize = 9;

fn load(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixture is valid JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("expected a number, got {value}"))
}

/// NaN for null: what the sampler did not say.
fn number_or_nan(value: &Value) -> f64 {
    if value.is_null() { f64::NAN } else { number(value) }
}

fn list(value: &Value) -> Vec<f32> {
    value.as_array().expect("an array").iter().map(|v| number(v) as f32).collect()
}

fn flat(value: &Value) -> Vec<f32> {
    value.as_array().expect("an array").iter().flat_map(list).collect()
}

fn table(value: &Value, device: &Device) -> Tensor<2> {
    table_of(value, number, device)
}

fn table_of(value: &Value, number: fn(&Value) -> f64, device: &Device) -> Tensor<2> {
    let rows = value.as_array().expect("an array");
    let values = rows.iter().flat_map(|row| row.as_array().expect("an array")).map(|v| number(v) as f32);
    let values: Vec<f32> = values.collect();
    let width = values.len() / rows.len();
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), device)
}

/// Largest error relative to the larger of `|expected|` and 0.01. A maximum would pass over a NaN: both sides must be
/// finite and of the same length.
fn gap(got: impl IntoIterator<Item = f64>, expected: impl IntoIterator<Item = f64>) -> f64 {
    gap_above(1e-2, got, expected)
}

/// As [`gap`], relative to the larger of `|expected|` and `floor`.
fn gap_above(floor: f64, got: impl IntoIterator<Item = f64>, expected: impl IntoIterator<Item = f64>) -> f64 {
    let (got, expected): (Vec<f64>, Vec<f64>) = (got.into_iter().collect(), expected.into_iter().collect());
    assert_eq!(got.len(), expected.len());
    let gaps = got.into_iter().zip(expected).map(|(got, expected)| {
        assert!(got.is_finite() && expected.is_finite(), "{got} {expected}");
        (got - expected).abs() / expected.abs().max(floor)
    });
    gaps.fold(0.0, f64::max)
}

fn clip(case: &Value) -> ClipRange {
    ClipRange::new(number(&case["epsilon_low"]), number(&case["epsilon_high"]))
}

fn batch(case: &Value, device: &Device) -> PolicyBatch {
    let mask: Tensor<2, Bool> = table(&case["completion_mask"], device).greater_elem(0.5);
    let reference = case.get("ref_log_probs").map(|reference| table(reference, device));
    let advantages = match case.get("advantages") {
        Some(advantages) => list(advantages),
        None => vec![0.0; mask.dims()[0]],
    };
    let old = case.get("old_log_probs").unwrap_or(&case["log_probs"]);
    let advantages = Tensor::from_floats(advantages.as_slice(), device);
    PolicyBatch::new(table(old, device), reference, advantages, mask).unwrap()
}

/// Settings of TRL as ours.
fn trl_config(case: &Value) -> GrpoConfig {
    let settings = &case["settings"];
    let aggregation = match settings["loss_type"].as_str().unwrap() {
        "grpo" | "sapo" => LossAggregation::SeqMeanTokenMean,
        "luspo" => LossAggregation::SeqMeanTokenSum,
        "dr_grpo" => LossAggregation::TokenSumOverBudget { max_completion_len: MAX_COMPLETION_LEN },
        "bnpo" | "dapo" | "cispo" | "vespo" => LossAggregation::TokenMean,
        other => panic!("unknown loss type {other}"),
    };
    let shape = |k: &str, lambda: &str| GammaShape { k: number(&settings[k]), lambda: number(&settings[lambda]) };
    let surrogate = match (settings["loss_type"].as_str().unwrap(), settings.get("delta")) {
        ("cispo", _) => Surrogate::TruncatedRatio { min_ratio: 0.0, max_ratio: number(&case["epsilon_high"]) },
        ("sapo", _) => Surrogate::SoftGate {
            temperature_positive: number(&settings["sapo_temperature_pos"]),
            temperature_negative: number(&settings["sapo_temperature_neg"]),
        },
        ("vespo", _) => Surrogate::GammaWeight {
            positive: shape("vespo_k_pos", "vespo_lambda_pos"),
            negative: shape("vespo_k_neg", "vespo_lambda_neg"),
        },
        (_, Some(delta)) => Surrogate::TwoSided { clip: clip(case), max_ratio: number(delta) },
        _ => Surrogate::Clipped(clip(case)),
    };
    let level = match settings["importance_sampling_level"].as_str() {
        Some("sequence") => RatioLevel::Sequence,
        _ => RatioLevel::Token,
    };
    let is_weighted = settings["use_bias_correction_kl"] == true;
    GrpoConfig::new(aggregation, AdvantageEstimator::GroupMean(RewardScale::GroupStd))
        .with_surrogate(surrogate)
        .with_ratio(level)
        .with_beta(number(&case["beta"]))
        .with_kl_gradient(if is_weighted { KlGradient::RatioWeighted } else { KlGradient::Own })
        .with_off_policy_threshold(settings["off_policy_mask_threshold"].as_f64())
        .with_entropy_coefficient(settings["entropy_coef"].as_f64().unwrap_or(0.0))
}

/// The sampler correction of TRL as ours.
fn trl_correction(settings: &Value) -> Option<SamplerCorrection> {
    let (level, bound) = settings["vllm_importance_sampling_mode"].as_str()?.split_once('_')?;
    Some(SamplerCorrection {
        level: if level == "token" { SamplerLevel::Token } else { SamplerLevel::Sequence },
        bound: if bound == "mask" { SamplerBound::Mask } else { SamplerBound::Truncate },
        min_ratio: settings["vllm_importance_sampling_clip_min"].as_f64().unwrap_or(0.0),
        max_ratio: number(&settings["vllm_importance_sampling_clip_max"]),
    })
}

fn trl_batch(case: &Value, device: &Device) -> PolicyBatch {
    let settings = &case["settings"];
    let mut batch = batch(case, device);
    if let Some(sampler) = case.get("sampler_log_probs") {
        batch = batch.with_sampler(table_of(sampler, number_or_nan, device), trl_correction(settings)).unwrap();
    }
    match settings["top_entropy_quantile"].as_f64() {
        Some(share) if share < 1.0 => batch.with_top_entropy_tokens(table(&case["entropies"], device), share).unwrap(),
        _ => batch,
    }
}

struct Outcome {
    loss: f64,
    gradient: Vec<f64>,
    entropy_gradient: Option<Vec<f64>>,
    summary: PolicySummary,
}

fn evaluate(batch: &PolicyBatch, case: &Value, config: &GrpoConfig) -> Outcome {
    let device = Device::flex().autodiff();
    let log_probs = table(&case["log_probs"], &device).require_grad();
    let entropy = case.get("entropies").map(|entropies| table(entropies, &device).require_grad());
    let scores = TokenScores { log_probs: log_probs.clone(), entropy: entropy.clone() };
    let output = policy_loss(batch, scores, config).unwrap();
    let loss = f64::from(output.loss.clone().into_scalar::<f32>());
    let gradients = output.loss.backward();
    let host = |tensor: &Tensor<2>| match tensor.grad(&gradients) {
        Some(gradient) => gradient.into_data().iter::<f64>().collect(),
        None => vec![0.0; tensor.dims().iter().product()],
    };
    let rows = output.metrics.read().unwrap();
    Outcome {
        loss,
        gradient: host(&log_probs),
        entropy_gradient: entropy.as_ref().map(host),
        summary: PolicySummary::with_level(&rows, config.ratio),
    }
}

/// Gaps of a case's loss and gradient, checked.
fn check(outcome: &Outcome, case: &Value, label: &str, gradient_tolerance: f64) -> (f64, f64) {
    let loss = gap([outcome.loss], [number(&case["loss"])]);
    assert!(loss < 1e-5, "{label}: loss {} {}", outcome.loss, case["loss"]);
    let expected: Vec<f64> = case["gradient"].as_array().unwrap().iter().flat_map(numbers).collect();
    let gradient = gap(outcome.gradient.iter().copied(), expected);
    assert!(gradient < gradient_tolerance, "{label}: gradient {gradient:e}");
    (loss, gradient)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(number).collect()
}

/// Largest gaps by name, and how many cases each name has.
#[derive(Default)]
struct Worst(std::collections::BTreeMap<String, (usize, f64, f64)>);

impl Worst {
    fn add(&mut self, name: &Value, (loss, gradient): (f64, f64)) {
        let entry = self.0.entry(name.as_str().unwrap().to_string()).or_default();
        *entry = (entry.0 + 1, entry.1.max(loss), entry.2.max(gradient));
    }

    fn report(&self, names: usize) {
        for (name, (cases, loss, gradient)) in &self.0 {
            println!("{name}: {cases} cases, loss {loss:.1e}, gradient {gradient:.1e}");
            assert!(*cases >= 20, "{name}");
        }
        assert_eq!(self.0.len(), names);
    }
}

/// Whether a log-ratio to the reference leaves `[-20, 20]`, where this crate differs on purpose.
fn is_beyond_the_clamp(case: &Value) -> bool {
    let pairs = flat(&case["log_probs"]).into_iter().zip(flat(&case["ref_log_probs"]));
    pairs.zip(flat(&case["completion_mask"])).any(|((a, b), mask)| mask > 0.0 && (a - b).abs() > 20.0)
}

#[test]
fn losses_gradients_and_metrics_equal_trl() {
    let fixture = load(include_str!("fixtures/trl_family.json"));
    assert_eq!(fixture["versions"]["trl"], "1.16.0");
    let device = Device::flex();
    let mut worst = Worst::default();
    let mut compared = std::collections::BTreeSet::new();
    for (index, case) in fixture["cases"].as_array().unwrap().iter().enumerate() {
        let config = trl_config(case);
        if config.beta > 0.0 && is_beyond_the_clamp(case) {
            continue;
        }
        let outcome = evaluate(&trl_batch(case, &device), case, &config);
        let label = format!("case {index} {}", case["name"]);
        worst.add(&case["name"], check(&outcome, case, &label, 1e-4));
        if let (Some(expected), Some(got)) = (case.get("entropy_gradient"), &outcome.entropy_gradient) {
            assert!(gap(got.iter().copied(), expected.as_array().unwrap().iter().flat_map(numbers)) < 1e-5, "{label}");
        }
        // TRL takes a batch of width 1 for a sequence-level one, where its metrics ignore the mask.
        if case["completion_mask"][0].as_array().unwrap().len() == 1 {
            continue;
        }
        let entries: std::collections::BTreeMap<_, _> = outcome.summary.entries().into_iter().collect();
        for (name, expected) in case["metrics"].as_object().unwrap() {
            if let (Some(got), Some(expected)) = (entries.get(name.as_str()), expected.as_f64()) {
                // The KL in f32 loses digits where it cancels.
                let tolerance = if name == "kl" { 1e-4 } else { 1e-5 };
                assert!(gap([*got], [expected]) < tolerance, "{label}: {name} {got} {expected}");
                compared.insert(name.clone());
            }
        }
    }
    worst.report(17);
    assert_eq!(compared.len(), 12, "{compared:?}");
}

#[test]
fn the_entropy_controller_equals_trl() {
    let fixture = load(include_str!("fixtures/trl_family.json"));
    let device = Device::flex();
    for sequence in fixture["adaptive"].as_array().unwrap() {
        let settings = &sequence["settings"];
        let value = |name: &str| number(&settings[name]);
        let adaptive = AdaptiveEntropy {
            initial: value("entropy_coef"),
            target: value("entropy_target"),
            step: value("entropy_coef_delta"),
            min: value("entropy_coef_min"),
            max: value("entropy_coef_max"),
        };
        let mut controller = EntropyController::new(adaptive).unwrap();
        for window in sequence["windows"].as_array().unwrap() {
            let mut case = window.clone();
            for key in ["settings", "epsilon_low", "epsilon_high", "beta"] {
                case[key] = sequence[key].clone();
            }
            assert!((controller.coefficient() - number(&window["applied_coef"])).abs() < 1e-5);
            let config = trl_config(&case).with_entropy_coefficient(controller.coefficient());
            check(&evaluate(&trl_batch(&case, &device), &case, &config), &case, "adaptive", 1e-4);
            controller.update(number(&window["measured_entropy"]));
        }
    }
}

#[test]
fn advantages_of_several_rewards_equal_trl() {
    let fixture = load(include_str!("fixtures/trl_family.json"));
    let cases = fixture["advantages"].as_array().unwrap();
    assert!(cases.len() >= 40);
    for (index, case) in cases.iter().enumerate() {
        let rows = case["rewards"].as_array().unwrap();
        let weights = numbers(&case["weights"]);
        let column = |k: usize| rows.iter().map(move |row| row[k].as_f64().map(|r| r as f32)).collect::<Vec<_>>();
        let scores: Vec<Vec<Option<f32>>> = (0..weights.len()).map(column).collect();
        let columns: Vec<RewardColumn<'_>> =
            weights.iter().zip(&scores).map(|(&weight, scores)| RewardColumn { weight, scores }).collect();
        let group_size = number(&case["group_size"]) as usize;
        let summed = sum_rewards(&columns).unwrap();
        let scales = [("group", RewardScale::GroupStd), ("batch", RewardScale::BatchStd), ("none", RewardScale::None)];
        let mut results =
            scales.map(|(key, scale)| (key, ril_grpo::group_advantages(&summed, group_size, scale).unwrap())).to_vec();
        results.push(("normalize_then_sum", normalize_then_sum(&columns, group_size).unwrap()));
        for (key, got) in results {
            let expected = numbers(&case[key]["advantages"]);
            let gap = gap_above(1.0, got.iter().copied().map(f64::from), expected.iter().copied());
            // A constant group: a rounding error of TRL's f32, divided by 1e-4.
            assert!(gap < 1e-5, "case {index} {key}: {got:?} {expected:?}");
        }
        let metrics = RewardMetrics::new(&summed, group_size).unwrap();
        let expected = &case["group"]["metrics"];
        let pairs = [
            ("reward", metrics.mean),
            ("reward_std", metrics.std),
            ("frac_reward_zero_std", Some(metrics.fraction_zero_std)),
        ];
        for (name, got) in pairs {
            match (expected[name].as_f64(), got) {
                (Some(expected), Some(got)) => assert!(gap([got], [expected]) < 1e-5, "case {index} {name}"),
                (expected, got) => assert_eq!(expected.is_some(), got.is_some(), "case {index} {name}"),
            }
        }
    }
}

#[test]
fn overlong_penalties_and_completion_lengths_equal_trl() {
    let fixture = load(include_str!("fixtures/trl_family.json"));
    for case in fixture["overlong"].as_array().unwrap() {
        let max = number(&case["max_completion_len"]) as usize;
        let cache = number(&case["soft_punish_cache"]) as usize;
        if cache == 0 {
            continue; // a hard limit in TRL, refused here
        }
        for (length, expected) in numbers(&case["lengths"]).into_iter().zip(numbers(&case["punishments"])) {
            let got = soft_overlong_penalty(length as usize, max, cache).unwrap();
            assert!((f64::from(got) - expected).abs() < 1e-6, "{length} of {max}, cache {cache}");
        }
    }
    for case in fixture["completions"].as_array().unwrap() {
        let lengths: Vec<usize> = numbers(&case["lengths"]).into_iter().map(|length| length as usize).collect();
        let truncated: Vec<bool> = case["is_truncated"].as_array().unwrap().iter().map(|t| t == true).collect();
        for (name, got) in CompletionMetrics::new(&lengths, &truncated).unwrap().entries() {
            assert!(gap([got], [number(&case["metrics"][name])]) < 1e-6, "{name}");
        }
    }
}

/// Settings of verl as ours.
fn verl_config(case: &Value) -> GrpoConfig {
    let settings = &case["settings"];
    let width = case["completion_mask"][0].as_array().unwrap().len();
    let aggregation = match settings["loss_agg_mode"].as_str() {
        // verl gives these the mean over rows whatever the mode.
        _ if case["name"] == "gmpo" || case["name"] == "sapo" => LossAggregation::SeqMeanTokenMean,
        Some("token-mean") => LossAggregation::TokenMean,
        Some("seq-mean-token-sum") => LossAggregation::SeqMeanTokenSum,
        Some("seq-mean-token-sum-norm") => LossAggregation::TokenSumOverBudget {
            max_completion_len: settings["loss_scale_factor"].as_u64().map_or(width, |n| n as usize),
        },
        _ => LossAggregation::SeqMeanTokenMean,
    };
    let range = clip(case);
    let max_ratio = || number(&settings["clip_ratio_c"]);
    let (surrogate, level) = match case["name"].as_str().unwrap() {
        "dual_clip" | "aggregation" => (Surrogate::DualClip { clip: range, max_ratio: max_ratio() }, RatioLevel::Token),
        "gspo_token" => (Surrogate::Clipped(range), RatioLevel::SequenceToken),
        "gmpo" => (Surrogate::GeometricMean(range), RatioLevel::Token),
        "cispo_two_sided" => (
            Surrogate::TruncatedRatio { min_ratio: 1.0 - range.epsilon_low, max_ratio: 1.0 + range.epsilon_high },
            RatioLevel::Token,
        ),
        "sapo" => (
            Surrogate::SoftGate {
                temperature_positive: number(&settings["tau_pos"]),
                temperature_negative: number(&settings["tau_neg"]),
            },
            RatioLevel::Token,
        ),
        other => panic!("unknown loss {other}"),
    };
    GrpoConfig::new(aggregation, AdvantageEstimator::LeaveOneOut).with_surrogate(surrogate).with_ratio(level)
}

#[test]
fn losses_and_gradients_equal_verl() {
    let fixture = load(include_str!("fixtures/verl.json"));
    assert_eq!(fixture["versions"]["verl"], "0.9.1");
    let device = Device::flex();
    let (mut worst, mut clipped) = (Worst::default(), 0);
    for (index, case) in fixture["cases"].as_array().unwrap().iter().enumerate() {
        let outcome = evaluate(&batch(case, &device), case, &verl_config(case));
        let label = format!("case {index} {}", case["name"]);
        worst.add(&case["name"], check(&outcome, case, &label, 1e-4));
        let (low, high) = (outcome.summary.clip_fraction_low, outcome.summary.clip_fraction_high);
        let metric = |name: &str| number(&case["metrics"][name]);
        // verl's lower share is that of the second bound in the dual clip, and its CISPO counts either sign.
        let pairs = match case["name"].as_str().unwrap() {
            "cispo_two_sided" => continue,
            "gmpo" => vec![(high, metric("actor/pg_clipfrac")), (low, metric("actor/pg_clipfrac_lower"))],
            _ => vec![(low + high, metric("actor/pg_clipfrac"))],
        };
        for (got, expected) in pairs {
            assert!((got - expected).abs() < 1e-6, "{label}: clipped {got} {expected}");
            clipped += usize::from(expected > 0.0);
        }
    }
    worst.report(6);
    assert!(clipped >= 60, "{clipped}");
}

#[test]
fn kl_estimators_equal_verl() {
    let fixture = load(include_str!("fixtures/verl.json"));
    let cases = fixture["kl"].as_array().unwrap();
    assert!(cases.len() >= 20);
    let device = Device::flex();
    for (index, case) in cases.iter().enumerate() {
        for (name, expected) in case["kinds"].as_object().unwrap() {
            let kl = match name.trim_end_matches('+') {
                "k1" => KlEstimator::K1,
                "k2" => KlEstimator::K2,
                "k3" => KlEstimator::K3,
                other => panic!("unknown estimator {other}"),
            };
            // With advantages of 0 the loss is beta times the summed KL over the number of rows.
            let rows = case["log_probs"].as_array().unwrap().len() as f64;
            let config = GrpoConfig::new(LossAggregation::SeqMeanTokenSum, AdvantageEstimator::LeaveOneOut)
                .with_beta(rows)
                .with_kl(kl)
                .with_kl_gradient(if name.ends_with('+') { KlGradient::OfK2 } else { KlGradient::Own });
            let outcome = evaluate(&batch(case, &device), case, &config);
            // k3 cancels near 0: each token rounds at 1e-7 in f32.
            let (value, rounding) = (number(&expected["value"]), 1e-7 * outcome.gradient.len() as f64);
            assert!((outcome.loss - value).abs() < 1e-5 * value.abs() + rounding, "case {index} {name}");
            let gradient: Vec<f64> = expected["gradient"].as_array().unwrap().iter().flat_map(numbers).collect();
            assert!(gap(outcome.gradient, gradient) < 1e-4, "case {index} {name}");
        }
    }
}

#[test]
fn advantages_equal_verl() {
    let fixture = load(include_str!("fixtures/verl.json"));
    let mut counted = 0;
    for (index, case) in fixture["advantages"].as_array().unwrap().iter().enumerate() {
        let estimator = match case["name"].as_str().unwrap() {
            "rloo" => AdvantageEstimator::LeaveOneOut,
            "reinforce_plus_plus_baseline" => AdvantageEstimator::ReinforcePlusPlus,
            _ => continue, // verl's GDPO whitens over tokens and floors at 1e-6; ours is TRL's
        };
        let group_size = number(&case["group_size"]) as usize;
        let lengths: Vec<usize> = numbers(&case["lengths"]).into_iter().map(|length| length as usize).collect();
        let rewards: Vec<Option<f32>> = list(&case["rewards"]).into_iter().map(Some).collect();
        if group_size == 1 {
            continue; // a documented difference: verl keeps the raw reward
        }
        let got = estimator.advantages(&rewards, group_size, &lengths).unwrap();
        let expected = numbers(&case["advantages"]);
        assert_eq!((got.len(), lengths.len()), (expected.len(), expected.len()));
        for ((got, expected), length) in got.iter().zip(&expected).zip(&lengths) {
            // A row without tokens has no advantage in verl.
            let gap = if *length == 0 { 0.0 } else { (f64::from(*got) - expected).abs() / expected.abs().max(1.0) };
            assert!(gap < 1e-5, "case {index} {}: {got} {expected}", case["name"]);
        }
        counted += 1;
    }
    assert!(counted >= 40, "{counted}");
}

#[test]
fn supervised_terms_equal_trinity() {
    let fixture = load(include_str!("fixtures/chord.json"));
    let device = Device::flex();
    let mut worst = Worst::default();
    for (index, case) in fixture["cases"].as_array().unwrap().iter().enumerate() {
        let settings = &case["settings"];
        assert_eq!(settings["loss_agg_mode"], "token-mean");
        let is_phi = case["name"] == "sft_phi" || settings["enable_phi_function"] == true;
        let token_weight = if is_phi { SftTokenWeight::Uncertainty } else { SftTokenWeight::Uniform };
        let weight = case.get("mu").map_or(1.0, number);
        let rows = case["log_probs"].as_array().unwrap().len();
        let is_teacher = |row: usize| case.get("expert_mask").is_none_or(|mask| mask[row] == true || mask[row] == 1);
        let roles = (0..rows).map(|row| if is_teacher(row) { RowRole::CHORD_TEACHER } else { RowRole::STUDENT });
        let surrogate = match case["name"].as_str().unwrap() {
            "mix" => Surrogate::DualClip { clip: clip(case), max_ratio: 3.0 },
            _ => Surrogate::Clipped(ClipRange::default()),
        };
        let config = GrpoConfig::new(LossAggregation::TokenMean, AdvantageEstimator::LeaveOneOut)
            .with_surrogate(surrogate)
            .with_sft(Some(SftTerm { weight, token_weight }));
        let batch = batch(case, &device).with_rows(roles.collect(), None).unwrap();
        let label = format!("case {index} {}", case["name"]);
        worst.add(&case["name"], check(&evaluate(&batch, case, &config), case, &label, 1e-4));
    }
    worst.report(3);
}

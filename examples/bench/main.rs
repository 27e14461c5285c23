//! The worker of `scripts/bench.py`: does one kind of work on given weights and tokens, once for each line that it reads.
//!
//!     cargo build --release --example bench
//!     python scripts/bench.py
//!
//! Its counterpart in PyTorch is `scripts/reference/bench_torch.py`; both read the same folder and the same inputs.

mod operators;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use clap::{Parser, ValueEnum};
use ril::adapters::ModelPolicy;
use ril::grpo::{GrpoConfig, Policy, RowRatio};
use ril::models::generate::{SamplingParams, generate};
use ril::models::image::RgbImage;
use ril::models::nn::kv_cache::KvCache;
use ril::models::qwen2_5_vl::processor::ImageProcessorConfig;
use ril::models::{
    CausalLm, ChatModel, ImageBatch, LoraConfig, Message, ModelError, ModelInput, Padding, Qwen2_5Vl, TokenBatch,
};
use ril::optimise::{UpdatePlan, optimise};
use ril::reward::{Judge, RewardError, Sample, Verdict};
use ril::{
    CachedResponse, FailedStep, Group, Learner, LocalRollout, OptimizerSettings, Origin, Prompt, Question, Response,
    RilConfig, RilTrainer, ScoringBatch, TeacherCache, TrainingData, discriminator_from,
};
use safetensors::SafeTensors;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    /// Samples of every prompt, with a picture each
    Rollout,
    /// One Dr.GRPO update: forward, backward, AdamW
    Update,
    /// Log-probabilities without a gradient
    Score,
    /// A whole step of RIL: four samples and four teacher responses a question
    Step,
    /// Pictures to patches
    Preprocess,
    /// A product with a weight
    Linear,
    RmsNorm,
    Swiglu,
    Rotary,
    /// Causal softmax attention with grouped heads
    Attention,
    /// Log-probabilities of given tokens from hidden states
    LogProbs,
}

#[derive(Parser)]
struct Args {
    #[arg(long, value_enum)]
    work: Work,
    /// Folder of a Qwen2.5-VL checkpoint
    #[arg(long)]
    model: PathBuf,
    /// What `scripts/bench.py` wrote
    #[arg(long)]
    inputs: PathBuf,
    /// Round weights to 8 bits, for rollouts
    #[arg(long)]
    int8: bool,
    /// Train an adapter of this rank on the decoder's products instead of the whole model, for updates
    #[arg(long)]
    lora_rank: Option<usize>,
    #[arg(long, default_value_t = 8)]
    samples: usize,
    #[arg(long, default_value_t = 48)]
    new_tokens: usize,
}

type Failure = Box<dyn std::error::Error>;
/// Does the work once and gives a number to compare with the other side's.
type Worked = Box<dyn FnMut() -> Result<f64, Failure>>;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let mut work = prepare(&args)?;
    work()?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let check = work()?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{}", serde_json::json!({"seconds": seconds, "check": check, "peak_mib": peak_mib()}));
    }
    Ok(())
}

fn prepare(args: &Args) -> Result<Worked, Failure> {
    if args.int8 && !matches!(args.work, Work::Rollout) {
        return Err("--int8 is for rollouts".into());
    }
    if args.lora_rank.is_some() && !matches!(args.work, Work::Update | Work::Rollout) {
        return Err("--lora-rank is for updates and rollouts".into());
    }
    let patch_size = ImageProcessorConfig::from_folder(&args.model)?.patch_size;
    let inputs = Inputs::read(&args.inputs, patch_size)?;
    let model = Qwen2_5Vl::from_folder(&args.model, &Device::flex())?;
    let model = if args.int8 { model.into_int8() } else { model };
    let model = match (args.lora_rank, args.work) {
        (Some(rank), Work::Rollout) => model.with_lora(&LoraConfig { rank, ..LoraConfig::default() }, 0)?,
        _ => model,
    };
    Ok(match args.work {
        Work::Rollout => {
            let (model, input) = (Endless(model), inputs.prompts()?);
            let params = SamplingParams {
                max_new_tokens: args.new_tokens,
                top_p: 0.95,
                top_k: 50,
                num_samples: args.samples,
                ..SamplingParams::default()
            };
            Box::new(move || Ok(generate(&model, &input, &params)?.iter().map(|c| c.token_ids.len() as f64).sum()))
        }
        Work::Score => {
            let batch = inputs.scoring_batch()?;
            let policy = ModelPolicy::new(model);
            Box::new(move || Ok(f64::from(policy.token_log_probs(&batch)?.sum().into_scalar::<f32>())))
        }
        Work::Update => {
            let groups = inputs.groups();
            drop(model);
            let model = Qwen2_5Vl::from_folder(&args.model, &Device::flex().autodiff())?;
            let model = match args.lora_rank {
                Some(rank) => model.with_lora(&LoraConfig { rank, ..LoraConfig::default() }, 0)?,
                None => model,
            };
            let settings = OptimizerSettings { micro_batch_rows: 8, ..OptimizerSettings::constant(1e-6) };
            let mut learner = Learner::new(model, settings);
            let grpo = GrpoConfig::dr_grpo(inputs.responses[0].len());
            Box::new(move || {
                let plan = UpdatePlan {
                    grpo: &grpo,
                    teacher_ratio: RowRatio::SameOld,
                    sampler_correction: None,
                    checks_gradients: false,
                    updates: 1,
                    learning_rate: 1e-6,
                    temperature: 1.0,
                    step: 0,
                };
                let reference = learner.view();
                let update = optimise(&mut learner, &reference, &groups, &inputs.advantages, plan)?;
                Ok(f64::from(update.grad_norm))
            })
        }
        Work::Step => {
            drop(model);
            let mut trainer = inputs.trainer(&args.model, args.new_tokens)?;
            Box::new(move || {
                let groups = trainer.collect(&mut LocalRollout::student(Endless(trainer.policy())))?;
                trainer.step_on(&groups)?;
                let students = groups.iter().flat_map(|group| &group.responses[..STUDENTS]);
                Ok(students.map(|response| response.token_ids.len() as f64).sum())
            })
        }
        Work::Preprocess => {
            let pictures = inputs.pictures;
            Box::new(move || {
                let batch = model.parts().processor.process(&pictures)?;
                Ok(batch.pixel_patches.iter().step_by(997).map(|&p| f64::from(p)).sum())
            })
        }
        operator => operators::prepare(operator, &args.inputs, model.head_weight())?,
    })
}

/// Prompts with one picture each, responses to them in turn, and pictures to cut into patches.
struct Inputs {
    prompts: Vec<Vec<u32>>,
    images: Vec<ImageBatch>,
    responses: Vec<Vec<u32>>,
    advantages: Vec<f32>,
    pictures: Vec<RgbImage>,
}

impl Inputs {
    fn read(path: &Path, patch_size: usize) -> Result<Self, Failure> {
        let bytes = std::fs::read(path)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let ids = |name: &str| -> Result<Vec<Vec<u32>>, Failure> {
            let view = file.tensor(name)?;
            let values: Vec<u32> = words::<8>(view.data()).map(|word| i64::from_le_bytes(word) as u32).collect();
            Ok(values.chunks(view.shape()[1]).map(<[u32]>::to_vec).collect())
        };
        let floats = |name: &str| -> Result<Vec<f32>, Failure> {
            Ok(words::<4>(file.tensor(name)?.data()).map(f32::from_le_bytes).collect())
        };
        let (patches, patch_dim) = (floats("pixel_patches")?, file.tensor("pixel_patches")?.shape()[1]);
        let mut rest = patches.as_slice();
        let images = ids("grid_thw")?.into_iter().map(|grid| {
            let grid_thw = [grid[0] as usize, grid[1] as usize, grid[2] as usize];
            let (own, later) = rest.split_at(grid_thw.iter().product::<usize>() * patch_dim);
            rest = later;
            ImageBatch { pixel_patches: own.to_vec(), patch_dim, patch_size, grid_thw: vec![grid_thw] }
        });
        let images = images.collect();
        let view = file.tensor("pictures")?;
        let &[_, height, width, _] = view.shape() else { return Err("pictures: expected four axes".into()) };
        let pictures = view.data().chunks(height * width * 3).map(|pixels| {
            RgbImage::from_raw(width as u32, height as u32, pixels.to_vec()).ok_or("a picture is cut short")
        });
        let pictures = pictures.collect::<Result<_, _>>()?;
        let (prompts, responses) = (ids("prompts")?, ids("responses")?);
        Ok(Self { prompts, images, responses, advantages: floats("advantages")?, pictures })
    }

    /// All prompts as one batch.
    fn prompts(&self) -> Result<ModelInput, ModelError> {
        Ok(ModelInput {
            tokens: TokenBatch::padded(&self.prompts, 0, Padding::Left),
            images: Some(ImageBatch::concat(&self.images)?),
            placements: (0..self.prompts.len()).collect(),
        })
    }

    fn question(&self, at: usize) -> Question {
        Question {
            id: at.to_string(),
            text: String::new(),
            answer: "nothing".into(),
            pictures: Vec::new(),
            prompt: Arc::new(Prompt { token_ids: self.prompts[at].clone(), images: Some(self.images[at].clone()) }),
        }
    }

    /// The first prompts, each with its share of the responses.
    fn groups(&self) -> Vec<Group> {
        let group_size = self.responses.len() / 2;
        let group = |(at, responses): (usize, &[Vec<u32>])| Group {
            question: self.question(at),
            responses: responses.iter().map(|ids| response(ids)).collect(),
        };
        self.responses.chunks(group_size).enumerate().map(group).collect()
    }

    /// All questions in every step, with teachers who wrote the responses, cut into pieces of `new_tokens`.
    fn trainer(&self, folder: &Path, new_tokens: usize) -> Result<RilTrainer<Qwen2_5Vl, Fickle>, Failure> {
        let device = Device::flex().autodiff();
        let student = Qwen2_5Vl::from_folder(folder, &device)?;
        let mut teachers = TeacherCache::default();
        for (at, ids) in self.responses.iter().flat_map(|ids| ids.chunks_exact(new_tokens)).enumerate() {
            let (question, teacher) = ((at / STUDENTS).to_string(), format!("teacher {}", at % STUDENTS));
            teachers.insert(CachedResponse { question, teacher, response: student.decode(ids)? });
        }
        let mut config = RilConfig::ril(new_tokens, 1000);
        config.groups.questions_per_step = self.prompts.len();
        config.policy = OptimizerSettings { micro_batch_rows: 8, ..OptimizerSettings::constant(1e-6) };
        config.discriminator = config.policy.clone();
        // As the other side, which has no way back.
        config.failed_step = FailedStep::Kept;
        let discriminator = discriminator_from(student.clone(), 0, &device);
        let questions = (0..self.prompts.len()).map(|at| self.question(at)).collect();
        let data = TrainingData { questions, teachers, judge: Fickle };
        Ok(RilTrainer::new(student, Some(discriminator), data, config)?)
    }

    fn scoring_batch(&self) -> Result<ScoringBatch, Failure> {
        let groups = self.groups();
        let rows = groups.iter().flat_map(|g| g.responses.iter().map(|r| (&g.question.prompt, r.token_ids.as_slice())));
        Ok(ScoringBatch::new(&rows.collect::<Vec<_>>())?)
    }
}

fn response(ids: &[u32]) -> Response {
    Response {
        text: String::new(),
        token_ids: ids.to_vec(),
        origin: Origin::Student,
        is_truncated: false,
        sampler_log_probs: None,
        policy_step: None,
    }
}

/// Student samples of a question in a whole step, and teachers.
const STUDENTS: usize = 4;

/// Finds about half of the responses right, so that no group is without a gradient.
struct Fickle;

impl Judge for Fickle {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        Ok(samples.iter().map(|sample| Verdict::of(sample.response.len() % 2 == 0)).collect())
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// Most memory that the process ever held, MiB; 0 where the system does not say.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// A model that never ends an answer, so that every run has the same number of tokens.
struct Endless(Qwen2_5Vl);

impl CausalLm for Endless {
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor<3>, ModelError> {
        self.0.hidden_states(input, cache)
    }

    fn head_weight(&self) -> Tensor<2> {
        self.0.head_weight()
    }

    fn new_cache(&self, rows: usize, capacity: usize) -> KvCache {
        self.0.new_cache(rows, capacity)
    }

    fn forbidden_ids(&self) -> &[u32] {
        self.0.forbidden_ids()
    }

    fn device(&self) -> Device {
        self.0.device()
    }
}

impl ChatModel for Endless {
    fn encode(&self, messages: &[Message]) -> Result<ModelInput, ModelError> {
        self.0.encode(messages)
    }

    fn encode_response(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.0.encode_response(text)
    }

    fn decode(&self, token_ids: &[u32]) -> Result<String, ModelError> {
        self.0.decode(token_ids)
    }

    fn stop_ids(&self) -> &[u32] {
        &[]
    }
}

//! Networks of a few thousand weights, and what they are trained on.

use burn::tensor::Device;
use ril::models::LoraConfig;
use ril::models::Qwen2_5Vl;
use ril::models::checkpoint::WeightType;
use ril::models::lora::TargetModules;
use ril::reward::{Judge, RuleJudge};
use ril::{
    CachedResponse, OptimizerSettings, Question, RilConfig, RilError, RilTrainer, TeacherCache, TrainingData,
    discriminator_from,
};

use crate::data::{Example, Mix, Split, generate};
use crate::models::{Size, fresh, questions};
use crate::task::{self, Style};
use crate::vocabulary::Vocabulary;

pub const TINY: Size = Size { width: 32, text_layers: 1, vision_layers: 1 };
pub const STEPS: usize = 5;

pub fn student() -> Qwen2_5Vl {
    fresh(TINY, &Vocabulary::new(), 7, &Device::flex().autodiff()).unwrap()
}

/// The same, frozen below adapters with dropout on every linear layer.
pub fn adapted_student() -> Qwen2_5Vl {
    student().with_lora(&adapters(), 11).unwrap()
}

/// Settings of its adapters.
pub fn adapters() -> LoraConfig {
    let targets = TargetModules::AllLinear;
    LoraConfig { rank: 4, alpha: 8.0, dropout: 0.1, target_modules: targets, ..LoraConfig::default() }
}

pub fn examples() -> Vec<Example> {
    generate(Split::Train, 6, 3, &Mix::default())
}

pub fn config() -> RilConfig {
    let mut config = RilConfig::ril(6, STEPS);
    config.groups.questions_per_step = 2;
    config.groups.students_per_question = 2;
    config.groups.teachers_per_question = 2;
    config.policy = OptimizerSettings { micro_batch_rows: 3, ..OptimizerSettings::constant(1e-3) };
    config.discriminator = config.policy.clone();
    config.prompt.system = task::DISCRIMINATOR_SYSTEM.into();
    config
}

/// RIL with an online discriminator and two teachers.
pub fn trainer(config: RilConfig) -> Result<RilTrainer<Qwen2_5Vl, RuleJudge>, RilError> {
    trainer_with(config, RuleJudge::default())
}

/// The same with another judge.
pub fn trainer_with<J: Judge + Sync>(config: RilConfig, judge: J) -> Result<RilTrainer<Qwen2_5Vl, J>, RilError> {
    trainer_of(student(), config, judge)
}

/// The same with another student, from which the discriminator starts too.
pub fn trainer_of<J: Judge + Sync>(
    student: Qwen2_5Vl,
    config: RilConfig,
    judge: J,
) -> Result<RilTrainer<Qwen2_5Vl, J>, RilError> {
    let discriminator = discriminator_from(student.clone(), 5, &Device::flex().autodiff());
    let (questions, teachers) = questions_and_teachers(&student);
    let data = TrainingData { questions, teachers, judge };
    RilTrainer::new(student, config.has_discriminator().then_some(discriminator), data, config)
}

/// Six questions, and one answer of each of two teachers to each.
pub fn questions_and_teachers(student: &Qwen2_5Vl) -> (Vec<Question>, TeacherCache) {
    let examples = examples();
    let questions = questions(student, &examples, "q").unwrap();
    let mut teachers = TeacherCache::default();
    for (question, example) in questions.iter().zip(&examples) {
        for (teacher, style) in [("a", Style::A), ("b", Style::B)] {
            let (question, response) = (question.id.clone(), style.answer(example));
            teachers.insert(CachedResponse { question, teacher: teacher.into(), response });
        }
    }
    (questions, teachers)
}

/// Weights, or adapters where there are some, as a file that others read.
pub fn weights(model: &Qwen2_5Vl) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    if model.has_lora() {
        model.save_adapter(folder.path(), WeightType::F32).unwrap();
        return std::fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
    }
    model.save(folder.path(), WeightType::F32).unwrap();
    std::fs::read(folder.path().join("model.safetensors")).unwrap()
}

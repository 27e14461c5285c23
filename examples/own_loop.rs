//! A loop of your own: `ril-grpo` and `ril-gail` alone, and models that neither has heard of.
//!
//!     cargo run --release --example own_loop
//!
//! The policy answers "twice 7?" with three characters. A rule rewards the last digit of the product, a discriminator
//! rewards what reads like the teacher's `=4.`, and that answer stands in every group, as in RIL (arXiv 2510.19307).

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Bool, Device, Distribution, Int, Tensor, TensorData};
use ril_gail::{AuthoredBy, Discriminator, GailConfig, GailError, Round, RowsFromFn, ScalarHead, ScalarHeadConfig};
use ril_gail::{score_rows, similarity_reward, update_discriminator};
use ril_grpo::{GrpoConfig, PolicyBatch, RowRole, gather_log_probs, policy_loss};

const ALPHABET: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '=', '.', '?', '!', '-', ' '];
const GROUP: usize = 8; // seven samples and one answer of the teacher
const ROWS: usize = 10 * GROUP; // row r answers question r / GROUP

type Text = [i64; 3]; // places in the alphabet

fn table(ids: impl Iterator<Item = Text>) -> Tensor<2, Int> {
    let ids: Vec<i64> = ids.flatten().collect();
    let rows = ids.len() / 3;
    Tensor::from_data(TensorData::new(ids, [rows, 3]), &Device::flex())
}

/// Logits of a character by question, place and the character before it.
#[derive(Module, Debug)]
struct Writer {
    logits: Embedding,
}

impl Writer {
    /// `[rows, 3, 16]`
    fn logits(&self, texts: &[Text]) -> Tensor<3> {
        let context = |row, place, before| ((row / GROUP * 3 + place) * 17) as i64 + before;
        let of_row =
            |(row, text): (usize, &Text)| [(0, 16), (1, text[0]), (2, text[1])].map(|(at, id)| context(row, at, id));
        self.logits.forward(table(texts.iter().enumerate().map(of_row)))
    }

    /// One completion for each row; the largest of logits + Gumbel noise is a draw from their softmax.
    fn sample(&self) -> Vec<Text> {
        let mut texts = vec![[0; 3]; ROWS];
        for place in 0..3 {
            let noise = Tensor::random([ROWS, 3, 16], Distribution::Uniform(1e-6, 0.999_999), &Device::flex());
            let drawn = (self.logits(&texts) - noise.log().neg().log()).argmax(2).into_data();
            texts.iter_mut().zip(drawn.iter::<i64>().skip(place).step_by(3)).for_each(|(text, id)| text[place] = id);
        }
        texts
    }
}

/// Judges an answer by its characters, each at its place.
#[derive(Module, Debug)]
struct Reader {
    head: ScalarHead,
}

impl Discriminator for Reader {
    type Input = Tensor<2, Int>;
    type Error = GailError;

    fn logits_student_is_high(&self, texts: &Tensor<2, Int>) -> Result<Tensor<1>, GailError> {
        Ok(self.head.forward(texts.clone().one_hot::<3>(16).float().flatten::<2>(1, 2)))
    }
}

/// The shares of samples that are right, and that the discriminator takes for the teacher's, in the last step.
pub fn train(steps: u64) -> Result<[f32; 2], Box<dyn std::error::Error>> {
    let (device, tracked) = (Device::flex(), Device::flex().autodiff());
    device.seed(0);
    let mut writer = Writer { logits: EmbeddingConfig::new(10 * 3 * 17, 16).init(&tracked) };
    let mut reader = Reader { head: ScalarHeadConfig::new(48).init(&tracked) };
    let (mut writing, mut reading) = (AdamWConfig::new().init(), AdamWConfig::new().init());
    let (grpo, gail) = (GrpoConfig::dr_grpo(3), GailConfig::new().with_micro_batch_rows(ROWS));
    let is_teacher = |row: usize| row % GROUP == GROUP - 1;
    let kinds = [(AuthoredBy::Student, RowRole::STUDENT), (AuthoredBy::Teacher, RowRole::RIL_TEACHER)];
    let (origins, roles): (Vec<_>, Vec<_>) = (0..ROWS).map(|row| kinds[usize::from(is_teacher(row))]).unzip();
    let answer = |row: usize| (row / GROUP * 2 % 10) as i64;

    println!("step  right  teacher-like  a sample for twice 1, 4, 7");
    let mut shares = [0.0; 2];
    for step in 0..=steps {
        // Sample, and put the teacher's answer at the end of each group.
        let mut texts = writer.valid().sample();
        (0..ROWS).filter(|&row| is_teacher(row)).for_each(|row| texts[row] = [10, answer(row), 11]);
        // Sharpen the discriminator; then reward the right digit, and what reads like the teacher.
        let input = |rows: &[usize]| Ok::<_, GailError>(table(rows.iter().map(|&row| texts[row])));
        let rows = RowsFromFn::new(&origins, input);
        let (sharpened, report) = update_discriminator(reader, &mut reading, &rows, Round::new(step, 0.01), &gail);
        (reader, _) = (sharpened, report?);
        let alike: Vec<f32> = score_rows(&reader.valid(), &rows, ROWS)?.into_iter().map(similarity_reward).collect();
        let is_right = |row: usize| texts[row].iter().filter(|&&id| id < 10).eq([&answer(row)]);
        let right: Vec<f32> = (0..ROWS).map(|row| f32::from(is_right(row))).collect();
        let share = |of: &[f32]| (0..ROWS).filter(|&row| !is_teacher(row)).map(|row| of[row]).sum::<f32>() / 70.0;
        shares = [share(&right), share(&alike)];
        if step % 25 == 0 {
            let samples = [1, 4, 7].map(|question| texts[question * GROUP].map(|id| ALPHABET[id as usize]));
            println!("{step:4}  {:5.2}  {:12.2}  {}", shares[0], shares[1], samples.map(String::from_iter).join(" "));
        }
        // Learn.
        let rewards: Vec<Option<f32>> = right.iter().zip(&alike).map(|(right, alike)| Some(right + alike)).collect();
        let advantages = grpo.advantage.advantages(&rewards, GROUP, &[3; ROWS])?;
        let score = |writer: &Writer| gather_log_probs(writer.logits(&texts), table(texts.iter().copied()));
        let mask = Tensor::<2, Bool>::full([ROWS, 3], true, &device);
        let (old, advantages) = (score(&writer.valid())?, Tensor::from_floats(advantages.as_slice(), &device));
        let batch = PolicyBatch::new(old, None, advantages, mask)?.with_rows(roles.clone(), None)?;
        let loss = policy_loss(&batch, score(&writer)?, &grpo)?.loss;
        let gradients = GradientsParams::from_grads(loss.backward(), &writer);
        writer = writing.step(0.05, writer, gradients);
    }
    Ok(shares)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    train(300).map(drop)
}

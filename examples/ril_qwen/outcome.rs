//! What a run leaves behind for people: `results.json`, the table on the terminal, `report.html`.

use std::io::Cursor;

use ril::RilError;
use ril::benchmark::{Answered, accuracy};
use ril::eval::{ArmResult, ArmRole, PairedComparison, Results, comparison_table, table};
use ril::models::ModelError;
use ril::models::files::write_atomic;
use ril::models::image::RgbImage;
use ril::report::{Answer, Chart, CurveGroup, Mark, Report, Series, Transcript, render};
use ril::run::RunFolder;

use crate::args::Settings;
use crate::describe;
use crate::world::World;

/// One model's answers to the held-out questions.
pub struct Arm {
    pub name: String,
    pub role: ArmRole,
    pub answers: Vec<Answered>,
}

/// A chart: metric, title, small print, fixed range of the vertical axis.
type ChartOf = (&'static str, &'static str, &'static str, Option<(f64, f64)>);

/// Curves as in the paper's Fig. 3, then what keeps an eye on the discriminator and the policy.
const CHARTS: [ChartOf; 6] = [
    ("reward/similarity", "Similarity reward", "share of student answers that read like a teacher's", Some((0.0, 1.0))),
    ("reward/answer", "Answer reward", "share of sampled student answers that are right", Some((0.0, 1.0))),
    (
        "discriminator/accuracy",
        "Discriminator accuracy",
        "balanced, before each update; 0.5 = fooled",
        Some((0.0, 1.0)),
    ),
    ("completions/mean_length", "Answer length", "tokens", None),
    ("kl", "KL to the fine-tuned student", "nats a token, k3", None),
    ("teacher/log_prob", "Log-probability of teacher answers", "nats a token", None),
];
const TRANSCRIPTS: usize = 8;

/// Writes everything and prints the tables.
pub fn write(run: &RunFolder, settings: &Settings, world: &World, arms: &[Arm]) -> Result<(), RilError> {
    let outcomes = |arm: &Arm| arm.answers.iter().map(|a| a.is_right).collect::<Vec<bool>>();
    let find = |name: &str| arms.iter().find(|arm| arm.name == name);
    let pairs = [
        ("dr_grpo", "sft"),
        ("ril_one_teacher", "dr_grpo"),
        ("ril_two_teachers", "dr_grpo"),
        ("ril_two_teachers", "ril_one_teacher"),
        ("ril_all_teachers", "dr_grpo"),
        ("ril_all_teachers", "ril_one_teacher"),
    ];
    let pairs = pairs.iter().filter_map(|(candidate, baseline)| Some((find(candidate)?, find(baseline)?)));
    let comparisons = pairs.map(|(candidate, baseline)| {
        PairedComparison::from_outcomes((&candidate.name, &outcomes(candidate)), (&baseline.name, &outcomes(baseline)))
    });
    let results = Results {
        arms: arms.iter().map(|arm| ArmResult::new(&arm.name, arm.role, accuracy(&arm.answers))).collect(),
        comparisons: comparisons.collect::<Result<_, _>>()?,
    };
    results.write(&run.file("results.json"))?;
    let report = Report {
        title: "RIL: a small model learns from larger ones".into(),
        subtitle: subtitle(settings, world),
        settings: describe::table(settings, world),
        arms: results.arms.clone(),
        comparisons: results.comparisons.clone(),
        curves: vec![curves(run, arms)?],
        transcripts: transcripts(world, arms)?,
        reproduce: vec![describe::command(settings)],
    };
    write_atomic(&run.file("report.html"), render(&report).as_bytes())?;
    println!("\n{}", table(&results.arms));
    for arm in arms {
        let unjudged = arm.answers.iter().filter(|answer| answer.is_unjudged).count();
        if unjudged > 0 {
            println!(
                "{}: the judge gave no verdict on {unjudged} of {} answers; they count as wrong",
                arm.name,
                arm.answers.len()
            );
        }
    }
    if settings.validation {
        println!("Measured on the validation split.\n");
    }
    println!("{}", comparison_table(&results.comparisons));
    println!("Report: {}", run.file("report.html").display());
    Ok(())
}

fn subtitle(settings: &Settings, world: &World) -> String {
    let held_out = world.held_out.len();
    match &settings.model {
        Some(model) => format!("{} on {held_out} held-out questions", model.display()),
        None => format!(
            "Toy Qwen2.5-VL models read handwritten digits; {held_out} held-out questions about digits that nothing was \
             trained on ({})",
            describe::split(settings)
        ),
    }
}

fn curves(run: &RunFolder, arms: &[Arm]) -> Result<CurveGroup, RilError> {
    let mut metrics = Vec::new();
    for arm in arms.iter().filter(|arm| arm.role == ArmRole::Arm) {
        metrics.push((&arm.name, run.metrics(&arm.name)?));
    }
    let charts = CHARTS.iter().map(|(key, title, note, y_range)| {
        let series = metrics.iter().map(|(name, lines)| {
            let point = |line: &serde_json::Map<_, serde_json::Value>| {
                Some((line.get("step")?.as_f64()? + 1.0, line.get(*key)?.as_f64()?))
            };
            Series { name: (*name).clone(), points: lines.iter().filter_map(point).collect() }
        });
        Chart {
            title: (*title).into(),
            note: (*note).into(),
            y_range: *y_range,
            series: series.filter(|s| !s.points.is_empty()).collect(),
            ..Chart::default()
        }
    });
    Ok(CurveGroup {
        title: "Training".into(),
        note: "Numbers of the sampled training batches; the table above is measured on held-out questions.".into(),
        charts: charts.filter(|chart| !chart.series.is_empty()).collect(),
    })
}

/// The first held-out questions that the arms do not agree on, then the first of all.
fn transcripts(world: &World, arms: &[Arm]) -> Result<Vec<Transcript>, RilError> {
    let differ = |i: &usize| {
        let mut marks = arms.iter().filter(|a| a.role != ArmRole::Teacher).map(|arm| arm.answers[*i].is_right);
        let first = marks.next();
        marks.any(|mark| Some(mark) != first)
    };
    let all = 0..world.held_out.len();
    let (mut picked, agreed): (Vec<usize>, Vec<usize>) = all.partition(differ);
    picked.truncate(TRANSCRIPTS - 2);
    let missing = TRANSCRIPTS - picked.len();
    picked.extend(agreed.into_iter().take(missing));
    picked.sort_unstable();
    picked.into_iter().map(|i| transcript(world, arms, i)).collect()
}

fn transcript(world: &World, arms: &[Arm], i: usize) -> Result<Transcript, RilError> {
    let question = &world.held_out[i];
    let answers = arms.iter().map(|arm| Answer {
        arm: arm.name.clone(),
        text: arm.answers[i].response.clone(),
        mark: if arm.answers[i].is_right { Mark::Right } else { Mark::Wrong },
        note: String::new(),
    });
    Ok(Transcript {
        pictures: question.pictures.iter().map(|p| png(p)).collect::<Result<_, _>>()?,
        question: question.text.clone(),
        reference: question.answer.clone(),
        answers: answers.collect(),
    })
}

/// At most 448 pixels wide: reports are mailed around.
fn png(picture: &RgbImage) -> Result<Vec<u8>, RilError> {
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = picture.dimensions();
    let small = width.min(448);
    let height = (height * small / width).max(1);
    let shown = ril::models::image::resize_bicubic(picture, small, height);
    shown
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|source| ModelError::Image { path: "report.html".into(), source })?;
    Ok(bytes.into_inner())
}

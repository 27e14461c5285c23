//! Settings for people: the table of the report, and the command that gives the same run again.

use clap::Parser;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::Settings;
use crate::device::DeviceName;
use crate::places::Places;
use crate::plan::{loop_config, pretraining};
use crate::world::World;

/// Name and value of everything that decides the numbers.
pub fn table(settings: &Settings, world: &World) -> Vec<(String, String)> {
    let config = loop_config(settings);
    let pretraining = pretraining(settings, &config);
    let (groups, sampling, grpo) = (&config.groups, &config.sampling, &config.grpo);
    let held_out = world.held_out.len();
    let rates =
        |first: f64, last: f64| if first == last { format!("{first:e}") } else { format!("{first:e} to {last:e}") };
    let mut table = vec![
        ("seed", settings.seed.to_string()),
        ("device", settings.device.name().to_string()),
        ("held-out questions", format!("{held_out}, {}", split(settings))),
        ("training questions", world.train.len().to_string()),
        ("loop steps", config.total_steps.to_string()),
        ("SFT steps", settings.sft_steps().to_string()),
        ("questions a step", groups.questions_per_step.to_string()),
        ("student samples a question", groups.students_per_question.to_string()),
        ("teacher responses a question, in the arms with teachers", groups.teachers_per_question.to_string()),
        ("learning rate in the loops", rates(config.policy.learning_rate, config.policy.final_learning_rate)),
        ("policy-gradient term", format!("{:?}", grpo.surrogate)),
        ("KL weight beta", grpo.beta.to_string()),
        ("updates a rollout (mu)", config.updates_per_rollout.to_string()),
        ("temperature / top-p / top-k", format!("{} / {} / {}", sampling.temperature, sampling.top_p, sampling.top_k)),
        ("repetition penalty", sampling.repetition_penalty.to_string()),
        ("longest answer, tokens", sampling.max_new_tokens.to_string()),
        ("discriminator pre-training, steps", pretraining.steps.to_string()),
        ("discriminator pre-training, samples a question", format!("{0} + {0}", pretraining.samples)),
        ("discriminator pre-training, learning rate", {
            rates(pretraining.optimizer.learning_rate, pretraining.optimizer.final_learning_rate)
        }),
        ("rows a pass", settings.micro_batch_rows().to_string()),
        ("rows sampled at once", settings.rollout_rows().to_string()),
    ];
    for (name, path) in
        [("student", &settings.model), ("data", &settings.data), ("teachers", &settings.teacher_responses)]
    {
        table.extend(path.as_ref().map(|p| (name, p.display().to_string())));
    }
    let servers = &settings.servers;
    if let Some(model) = &servers.judge_model {
        table.push(("judge", format!("{model}, {} prompt", servers.judge_prompt.name())));
    }
    if let Some(model) = &servers.teacher_model {
        let (answers, tokens) = (servers.teacher_answers, servers.teacher_max_tokens);
        table.push((
            "teacher on a server",
            format!("{model}, {answers} answers a question, of {tokens} tokens at most"),
        ));
    }
    if let Some(model) = &servers.rollout_model {
        let time = if servers.sample_ahead { "one step ahead" } else { "before each step" };
        table.push(("samples of the loops", format!("{model} on a server, {time}")));
    }
    table.extend(settings.lora().map(|lora| ("adapters, rank / alpha", format!("{} / {}", lora.rank, lora.alpha))));
    table.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// Which questions are held out.
pub fn split(settings: &Settings) -> &'static str {
    match (&settings.model, settings.validation) {
        (Some(_), _) => "of the user's data",
        (None, true) => "validation split, for choosing settings",
        (None, false) => "test split",
    }
}

/// The command of a new run with these settings: every one that is not the default, and the seed.
pub fn command(settings: &Settings) -> String {
    let (given, usual) = (fields(settings), fields(&Settings::parse_from(["ril_qwen"])));
    let mut command = cargo_run(settings.device);
    for (name, value) in given.iter().filter(|(name, value)| *name == "seed" || usual.get(*name) != Some(value)) {
        command += &flags(name, value);
    }
    command
}

/// A field as it stands on the command line, once for each of its values.
fn flags(name: &str, value: &Value) -> String {
    let flag = name.replace('_', "-");
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let one = |value: &Value| match value {
        Value::Bool(_) => format!(" --{flag}"),
        Value::String(text) => format!(" --{flag} {}", quoted(text)),
        other => format!(" --{flag} {other}"),
    };
    values.iter().map(one).collect()
}

/// How to start a build that has a device.
fn cargo_run(device: DeviceName) -> String {
    let features = if device == DeviceName::Cpu { String::new() } else { format!(" --features {}", device.name()) };
    format!("cargo run --release{features} --example ril_qwen --")
}

/// The command that goes on with a run.
pub fn resume_command(folder: &str, device: DeviceName, others: &[(String, Value)]) -> String {
    let others: String = others.iter().map(|(name, value)| flags(name, value)).collect();
    format!("{} --resume {}{others}", cargo_run(device), quoted(folder))
}

/// The places that are given, by name.
pub fn given(places: &Places) -> Vec<(String, Value)> {
    let usual = fields(&Places::default());
    fields(places).into_iter().filter(|(name, value)| usual.get(name) != Some(value)).collect()
}

/// The fields by name: what is stored is what is told, so that a new field cannot be forgotten here.
fn fields(settings: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;

    #[test]
    fn the_command_gives_the_same_settings() {
        let all = "--seed 7 --steps 3 --sft-steps 0 --held-out 9 --questions-per-step 2 --learning-rate 0.00001 \
                   --max-new-tokens 8 --discriminator-steps 5 --micro-batch-rows 3 --rows-at-once 12 \
                   --checkpoint-every 4 --lora-rank 4 --lora-alpha 6.5 --judge-server http://a --judge-server http://b \
                   --judge-model j --judge-prompt short --judge-max-tokens 9 --rollout-server http://c --rollout-model s \
                   --adapter-folder /tmp/a --sample-ahead --requests-at-once 5 --request-timeout 2.5 --request-attempts 3 --judge-key-env J --rollout-key-env R \
                   --teacher-key-env T --teacher-server http://d --teacher-answers 2 --teacher-max-tokens 5 \
                   --teacher-samples-per-request 1 --requests-per-second 2.5";
        for flags in [
            String::new(),
            all.into(),
            "--quick --validation".into(),
            format!("{all} --model m/n --data d --teacher-responses t --teacher-model u"),
        ] {
            let parse = |text: &str| Args::parse_from(format!("ril_qwen {text}").split_whitespace()).settings();
            let settings = parse(&flags);
            let command = command(&settings);
            let (cargo, rest) = command.split_once(" -- ").unwrap();
            assert_eq!(cargo, "cargo run --release --example ril_qwen");
            assert_eq!(parse(rest), settings, "{command}");
        }
    }

    #[test]
    fn the_device_asks_for_its_feature_and_odd_paths_are_quoted() {
        let mut settings = Settings::parse_from(["ril_qwen"]);
        settings.device = DeviceName::Cuda;
        let expected = "cargo run --release --features cuda --example ril_qwen -- --seed 0 --device cuda";
        assert_eq!(command(&settings), expected);
        let resume = resume_command("it's a run", DeviceName::Cpu, &[("monitor".into(), "plain".into())]);
        assert_eq!(resume, r"cargo run --release --example ril_qwen -- --resume 'it'\''s a run' --monitor plain");
    }
}

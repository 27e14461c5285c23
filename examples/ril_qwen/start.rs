//! A run begins, or goes on: everything is checked before anything is written.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ril::models::files::write_atomic;
use ril::monitor::{Monitor, MonitorMode};
use ril::run::{Outcome, RunFolder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::{Args, Settings};
use crate::describe::{given, resume_command};
use crate::inputs::{Input, check_unchanged, inputs};
use crate::plan;
use crate::recipe::Recipe;
use crate::teachers;
use crate::world::World;

/// Name of the file with the settings of a run.
pub const SETTINGS_FILE: &str = "settings.json";

/// The settings file: settings, and the user's files as they were.
#[derive(Serialize, Deserialize)]
struct Begun {
    #[serde(flatten)]
    settings: Settings,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Input>,
}

/// Does what the command line asks for.
///
/// # Errors
/// Anything that is wrong with settings or files; a new run leaves no trace then, unless it had begun.
pub fn start(args: &Args, mut monitor: Monitor) -> Result<Outcome, Box<dyn Error>> {
    if args.train_teachers {
        let device = args.device.unwrap_or_default().open()?;
        teachers::train(args.settings().seed, &device, &mut monitor)?;
        return Ok(Outcome::Finished);
    }
    let (folder, settings) = match &args.resume {
        Some(folder) => (folder.clone(), resumed(args, folder)?),
        None => (new_folder(args)?, args.settings()),
    };
    plan::check(&settings)?;
    let device = settings.device.open()?;
    let begun = Begun { inputs: inputs(&settings)?, settings: settings.clone() };
    let mut world = World::new(&settings, &device)?;
    if args.resume.is_none() {
        let text = format!("{}\n", serde_json::to_string_pretty(&begun)?);
        write_atomic(&folder.join(SETTINGS_FILE), text.as_bytes())?;
    }
    let run = RunFolder::open(&folder, settings.checkpoint_every)?;
    let command = how_to_go_on(args, &folder, &settings);
    let judge = settings.servers.judge(&run)?;
    let outcome = match world.begin_feed(&settings, &run, &mut monitor)? {
        ControlFlow::Continue(()) => Recipe { run, settings, device, monitor, world, judge }.carry_out()?,
        ControlFlow::Break(()) => {
            monitor.finish();
            world.end_feed();
            Outcome::Interrupted
        }
    };
    if outcome == Outcome::Interrupted {
        println!("Stopped. Go on with: {command}");
    }
    Ok(outcome)
}

/// The settings that a run was begun with, if its inputs are still the same.
fn resumed(args: &Args, folder: &Path) -> Result<Settings, Box<dyn Error>> {
    let path = folder.join(SETTINGS_FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let begun: Begun = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    check_unchanged(&begun.inputs, &inputs(&begun.settings)?)?;
    Ok(args.resumed(begun.settings))
}

/// Where a new run goes; nothing is made yet.
fn new_folder(args: &Args) -> Result<PathBuf, String> {
    match &args.out {
        Some(folder) if folder.join(SETTINGS_FILE).exists() => {
            Err(format!("{0} holds a run: go on with --resume {0}, or name another folder", folder.display()))
        }
        Some(folder) => Ok(folder.clone()),
        None => {
            let base = format!("runs/ril_qwen-seed{}", args.settings().seed);
            let names = std::iter::once(base.clone()).chain((2..).map(|i| format!("{base}-{i}")));
            names.map(PathBuf::from).find(|f| !f.exists()).ok_or_else(|| "no free folder under runs".into())
        }
    }
}

fn how_to_go_on(args: &Args, folder: &Path, settings: &Settings) -> String {
    let mut others = Vec::new();
    if args.resume.is_some() {
        others.extend(args.device.map(|device| ("device".into(), Value::from(device.name()))));
        others.extend(given(args.places()));
    }
    if args.monitor != MonitorMode::Auto {
        others.push(("monitor".into(), Value::from(args.monitor.to_string())));
    }
    resume_command(&folder.display().to_string(), settings.device, &others)
}

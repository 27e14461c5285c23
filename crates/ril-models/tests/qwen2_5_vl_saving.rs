//! Saving over another checkpoint: the folder holds the old one, the new one, or none that loads.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use common::{Fixture, copy, read_checkpoint};
use ril_models::checkpoint::{INDEX_FILE, WEIGHTS_FILE, WeightType};
use ril_models::{ModelError, Qwen2_5Vl};

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_save_that_cannot_write_one_file_leaves_the_old_folder_as_it_was() {
    let model = Fixture::open("nested").model(&Device::flex());
    for taken in ["preprocessor_config.json", WEIGHTS_FILE] {
        let folder = copy("sharded");
        fs::create_dir_all(folder.path().join(taken).join("inside")).unwrap();
        let before = contents(folder.path());
        let error = model.save(folder.path(), WeightType::F32).unwrap_err();
        assert!(matches!(&error, ModelError::Io { path, .. } if path.ends_with(taken)), "{error}");
        assert!(before == contents(folder.path()), "{taken}: other files");
    }
    let folder = copy("sharded");
    fs::create_dir(folder.path().join("preprocessor_config.json")).unwrap();
    assert!(model.save(folder.path(), WeightType::F32).is_err());
    fs::remove_dir(folder.path().join("preprocessor_config.json")).unwrap();
    assert!(Qwen2_5Vl::from_folder(folder.path(), &Device::flex()).is_ok());
}

#[test]
fn a_folder_without_weights_or_index_does_not_load() {
    let folder = copy("sharded");
    fs::remove_file(folder.path().join(INDEX_FILE)).unwrap();
    let error = Qwen2_5Vl::from_folder(folder.path(), &Device::flex()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, ModelError::Io { path, .. } if path.ends_with(WEIGHTS_FILE)), "{error}");
}

/// As in transformers. An index that stays behind is no danger then.
#[test]
fn a_single_file_stands_above_an_index() {
    let fixture = Fixture::open("flat");
    let folder = copy("flat");
    let index = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}"#;
    fs::write(folder.path().join(INDEX_FILE), index).unwrap();
    Qwen2_5Vl::from_folder(folder.path(), &Device::flex()).unwrap();
    fixture.model(&Device::flex()).save(folder.path(), WeightType::F32).unwrap();
    assert!(!folder.path().join(INDEX_FILE).exists());
    assert!(read_checkpoint(folder.path()) == read_checkpoint(&fixture.folder));
}

#[cfg(unix)]
#[test]
fn weights_have_the_mode_of_the_other_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    Fixture::open("flat").model(&Device::flex()).save(folder.path(), WeightType::F32).unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode(WEIGHTS_FILE), mode("config.json"));
    assert!(contents(folder.path()).keys().all(|name| !name.ends_with(".tmp")));
}

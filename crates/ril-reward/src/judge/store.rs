use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use sha2::{Digest, Sha256};

use crate::{RewardError, Sample};

const ANSWERS: TableDefinition<&[u8; 32], &str> = TableDefinition::new("answers");

/// Memory that the file's pages may take.
const CACHE_BYTES: usize = 8 << 20;

/// What judges wrote, on disk, by the content of what they were asked.
///
/// The key is SHA-256 over who was asked and how (model, settings, prompt template) and over question, ground truth and
/// response. The value is the judge's text, which is read anew each time. One file (redb), complete after a kill at any
/// point; memory does not grow with the number of texts. One process at a time may open it.
#[derive(Debug)]
pub struct AnswerStore {
    database: Database,
    path: PathBuf,
}

/// Key of one text.
pub(crate) type AnswerKey = [u8; 32];

impl AnswerStore {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`RewardError::Store`] with the path: a file that is none of ours, damaged, or in use.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RewardError> {
        let path = path.as_ref().to_path_buf();
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|source| store_error(&path, source))?;
        let store = Self { database, path };
        // So that readers find the table.
        store.insert(&[])?;
        Ok(store)
    }

    /// Texts kept.
    ///
    /// # Errors
    /// [`RewardError::Store`].
    pub fn len(&self) -> Result<u64, RewardError> {
        let read = || Ok(self.database.begin_read()?.open_table(ANSWERS)?.len()?);
        self.checked(read())
    }

    /// True when nothing is kept.
    ///
    /// # Errors
    /// [`RewardError::Store`].
    pub fn is_empty(&self) -> Result<bool, RewardError> {
        Ok(self.len()? == 0)
    }

    /// The texts of these keys, in order.
    pub(crate) fn get(&self, keys: &[AnswerKey]) -> Result<Vec<Option<String>>, RewardError> {
        let read = || {
            let table = self.database.begin_read()?.open_table(ANSWERS)?;
            keys.iter().map(|key| Ok(table.get(key)?.map(|text| text.value().to_owned()))).collect()
        };
        self.checked(read())
    }

    /// Adds texts, all of them or none; they are on the disk when this returns.
    pub(crate) fn insert(&self, entries: &[(AnswerKey, String)]) -> Result<(), RewardError> {
        let write = || {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(ANSWERS)?;
                for (key, text) in entries {
                    table.insert(key, text.as_str())?;
                }
            }
            Ok(transaction.commit()?)
        };
        self.checked(write())
    }

    fn checked<T>(&self, result: Result<T, redb::Error>) -> Result<T, RewardError> {
        result.map_err(|source| store_error(&self.path, source))
    }
}

fn store_error(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> RewardError {
    RewardError::Store { path: path.to_path_buf(), source: Box::new(source) }
}

/// The key of a sample under an identity: who is asked, and how. Each field is preceded by its length, so that fields cannot
/// run together.
pub(crate) fn answer_key(identity: &str, sample: &Sample<'_>) -> AnswerKey {
    let mut hasher = Sha256::new();
    for field in [identity, sample.question, sample.reference, sample.response] {
        hasher.update((field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AnswerKey {
        answer_key("m", &Sample::new("q", "a", text))
    }

    #[test]
    fn texts_are_kept_across_openings() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("answers.redb");
        let store = AnswerStore::open(&path).expect("opened");
        assert!(store.is_empty().expect("read"));
        store.insert(&[(key("x"), "one".into()), (key("y"), "é 北京".into())]).expect("written");
        store.insert(&[(key("x"), "two".into())]).expect("written");
        drop(store);
        let store = AnswerStore::open(&path).expect("opened again");
        let texts = store.get(&[key("y"), key("z"), key("x")]).expect("read");
        assert_eq!(texts, [Some("é 北京".to_owned()), None, Some("two".to_owned())]);
        assert_eq!(store.len().expect("read"), 2);
    }

    #[test]
    fn every_field_is_part_of_the_key() {
        let samples = [("q", "a", "r"), ("qa", "", "r"), ("q", "ar", ""), ("", "qa", "r"), ("q", "a", "r2")];
        let mut keys: Vec<AnswerKey> = Vec::new();
        for identity in ["m", "n", "mq"] {
            keys.extend(samples.map(|(q, a, r)| answer_key(identity, &Sample::new(q, a, r))));
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 15);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_named_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "my notes, longer than a header of any database file would be").expect("written");
        let error = AnswerStore::open(&path).expect_err("no database");
        assert!(error.to_string().contains("notes.txt"), "{error}");
        assert!(std::fs::read_to_string(&path).expect("still there").starts_with("my notes"));
    }

    #[test]
    fn a_file_in_use_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("answers.redb");
        let _store = AnswerStore::open(&path).expect("opened");
        assert!(matches!(AnswerStore::open(&path), Err(RewardError::Store { .. })));
    }
}

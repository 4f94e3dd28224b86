use super::*;
use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use std::sync::Arc;

fn rows(values: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)]).unwrap()
}

fn all(store: &StateStore, files: &[StateFile], operators: u8) -> BTreeMap<(u8, String), Vec<i64>> {
    let mut out = BTreeMap::new();
    for operator in 0..operators {
        let mut load = store.load(files, &operator.to_string());
        for part in load.parts() {
            let batches = load.read(&part).unwrap();
            let values = batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
            out.insert((operator, part), values);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_loaded_equals_a_naive_map(saves in prop::collection::vec(prop::collection::vec((0u8..2, 0u8..3, prop::option::weighted(0.8, 0i64..100)), 0..5), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open(world::local_disk(), dir.path()).unwrap();
        let (mut naive, mut files) = (BTreeMap::<(u8, String), Vec<i64>>::new(), Vec::new());
        for (number, actions) in saves.iter().enumerate() {
            let mut save = StateSave::default();
            for (operator, part, value) in actions {
                let (name, part) = (operator.to_string(), part.to_string());
                match value {
                    Some(v) => {
                        save.operator(&name).append(&part, rows(&[*v]));
                        naive.entry((*operator, part)).or_default().push(*v);
                    }
                    None => {
                        save.operator(&name).remove(&part);
                        naive.remove(&(*operator, part));
                    }
                }
            }
            let change = store.finish(&save, &files, &mut Names::new("l", 1, number as u64)).unwrap();
            fold_state(&mut files, &change).unwrap();
            prop_assert!(files.len() <= MAX_FILES);
        }
        prop_assert_eq!(all(&store, &files, 2), naive);
    }
}

#[test]
fn a_damaged_part_is_told_with_file_and_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(world::local_disk(), dir.path()).unwrap();
    let mut save = StateSave::default();
    save.operator("o").append("p", rows(&[1, 2]));
    let file = store.finish(&save, &[], &mut Names::new("l", 1, 2)).unwrap().added.unwrap();
    let path = dir.path().join(&file.file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = store.load(std::slice::from_ref(&file), "o").read("p").unwrap_err().to_string();
    assert!(error.contains("l-1-2-0.state is damaged at byte 0"), "{error}");
    std::fs::write(&path, &bytes[..50]).unwrap();
    let error = store.load(&[file], "o").read("p").unwrap_err().to_string();
    assert!(error.contains("damaged at byte 50"), "{error}");
}

use super::*;
use std::path::Path;

fn plan(word: &str) -> Fingerprint {
    Fingerprint([("operator.hourly".to_owned(), word.to_owned())].into())
}

fn segment(file: &str) -> Segment {
    Segment {
        file: file.into(),
        rows: 1,
        bytes: 10,
        checksum: 7,
        min_time: 0,
        max_time: 1,
        min_key: "a".into(),
        max_key: "b".into(),
        epoch: 1,
        mark: None,
    }
}

fn adding(file: &str) -> TableChange {
    TableChange { added: vec![segment(file)], ..TableChange::default() }
}

fn change(count: u64, table: TableChange) -> Change {
    let mut change = Change { watermark: count.into(), ..Change::default() };
    change.positions.advance(&"j".into(), flow::Offset(count));
    change.counters.insert("taken".into(), count);
    change.tables.insert("t".into(), table);
    change
}

fn claim(store: &LocalEpochs, incarnation: u64) -> Chain {
    Chain::from_claimed(store.claim("j/0", &plan("p"), incarnation, "here").unwrap())
}

fn seal(store: &LocalEpochs, chain: &mut Chain, change: Change) -> Sealed {
    let sealed = store.seal(chain.next(change).unwrap()).unwrap();
    if sealed == Sealed::Ours {
        chain.sealed();
    }
    sealed
}

fn path(dir: &Path, number: u64) -> std::path::PathBuf {
    dir.join(format!("epochs/p/j+0/{number:020}.record"))
}

#[test]
fn folding_deltas_gives_what_a_whole_record_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut chain = claim(&store, 1);
    for n in 1..=150 {
        let mut table = adding(&format!("s{n}"));
        if n % 7 == 0 {
            table.removed = vec![format!("s{}", n - 1)];
        }
        if n % 10 == 5 {
            table.marked = Some(Mark { number: n / 10 + 1, files: vec![format!("s{n}")] });
        }
        if n % 10 == 9 {
            table.dropped = Some(n / 10 + 1);
        }
        assert_eq!(seal(&store, &mut chain, change(n, table)), Sealed::Ours);
        let newest = store.newest("j/0").unwrap().unwrap();
        assert_eq!((&*newest.whole, &newest.header, newest.last_whole), (&**chain.whole(), chain.header(), chain.last_whole()));
    }
    assert_eq!(chain.last_whole(), 129);
    assert_eq!(chain.whole().tables["t"].dropped, 15);
    let again = claim(&store, 2);
    assert_eq!(again.whole(), chain.whole());
    assert_eq!((again.header().generation, &again.header().chain), (152, &chain.header().chain));
    assert_eq!(store.lanes().unwrap(), ["j/0"]);
}

#[test]
fn of_many_claimers_each_gets_a_generation_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut generations: Vec<u64> = std::thread::scope(|s| {
        let claims: Vec<_> = (0..8)
            .map(|i| {
                s.spawn({
                    let store = &store;
                    move || claim(store, i).header().generation
                })
            })
            .collect();
        claims.into_iter().map(|c| c.join().unwrap()).collect()
    });
    generations.sort_unstable();
    assert_eq!(generations, (1..=8).collect::<Vec<_>>());
}

#[test]
fn an_owner_that_lost_its_lane_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut first = claim(&store, 1);
    assert_eq!(seal(&store, &mut first, change(1, adding("a"))), Sealed::Ours);
    let mut second = claim(&store, 2);
    assert_eq!(seal(&store, &mut first, change(2, adding("b"))), Sealed::Fenced);
    assert_eq!(seal(&store, &mut second, change(2, adding("c"))), Sealed::Ours);
}

#[test]
fn sealing_the_same_record_again_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut chain = claim(&store, 1);
    let record = chain.next(change(1, adding("a"))).unwrap().clone();
    assert_eq!(store.seal(&record).unwrap(), Sealed::Ours);
    assert_eq!(store.seal(&record).unwrap(), Sealed::Ours);
}

#[test]
fn a_zombie_whose_parent_was_cleaned_up_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut zombie = claim(&store, 1);
    store.delete("j/0", 1).unwrap();
    assert_eq!(seal(&store, &mut zombie, change(1, adding("a"))), Sealed::Fenced);
}

#[test]
fn a_damaged_newest_record_stops_with_file_and_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut chain = claim(&store, 1);
    seal(&store, &mut chain, change(1, adding("a")));
    let newest = path(dir.path(), 2);
    let good = std::fs::read(&newest).unwrap();
    let told = |bytes: &[u8]| {
        std::fs::write(&newest, bytes).unwrap();
        store.claim("j/0", &plan("p"), 2, "x").unwrap_err().to_string()
    };
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let text = told(&bad);
        assert!(text.contains("00002.record is damaged at byte "), "byte {at}: {text}");
    }
    assert!(told(&good[..11]).contains("damaged at byte 11"));
    assert!(told(&good[..good.len() - 1]).contains("damaged at byte 12"));
    std::fs::write(&newest, &good).unwrap();
    assert_eq!(claim(&store, 2).header().number, 3);
    std::fs::remove_file(path(dir.path(), 1)).unwrap();
    assert!(store.newest("j/0").is_ok(), "record 3 is whole");
}

#[test]
fn a_newer_format_and_another_plan_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    claim(&store, 1);
    let text = store.claim("j/0", &plan("q"), 2, "x").unwrap_err().to_string();
    assert!(text.contains("operator.hourly was p and is q"), "{text}");
    let of_format = |format: u8| {
        let mut bytes = std::fs::read(path(dir.path(), 1)).unwrap();
        bytes[8] = format;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path(dir.path(), 1), &bytes).unwrap();
        bytes
    };
    of_format(1);
    assert_eq!(store.newest("j/0").unwrap().unwrap().header.number, 1, "what an earlier program wrote is read");
    let newer = of_format(u8::try_from(FORMAT).unwrap() + 1);
    let text = store.newest("j/0").unwrap_err().to_string();
    assert!(text.contains(&format!("has format {}, this program reads up to {FORMAT}", FORMAT + 1)), "{text}");
    assert!(store.claim("j/0", &plan("p"), 3, "x").is_err());
    assert_eq!(std::fs::read(path(dir.path(), 1)).unwrap(), newer, "and left as it is");
}

#[test]
fn a_change_that_does_not_fit_makes_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut chain = claim(&store, 1);
    seal(&store, &mut chain, change(5, adding("a")));
    for bad in [
        change(4, TableChange::default()),
        change(6, adding("a")),
        change(6, TableChange { removed: vec!["x".into()], ..TableChange::default() }),
        change(6, TableChange { dropped: Some(1), ..TableChange::default() }),
        change(6, TableChange { marked: Some(Mark { number: 2, files: vec!["a".into()] }), ..TableChange::default() }),
    ] {
        assert!(matches!(chain.next(bad), Err(EpochError::Unfit { number: 3, .. })));
    }
    let gone = {
        seal(&store, &mut chain, change(6, adding("b")));
        chain.whole().files()
    };
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn clean_up_keeps_the_last_thousand_and_the_newest_whole_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    std::fs::create_dir_all(path(dir.path(), 1).parent().unwrap()).unwrap();
    for n in 1..=1_200 {
        std::fs::write(path(dir.path(), n), b"").unwrap();
    }
    assert_eq!(clean_records(&store, "j/0", 1_150, 101).unwrap(), 100);
    assert_eq!(clean_records(&store, "j/0", 1_150, u64::MAX).unwrap(), 100);
    assert_eq!(store.numbers("j/0").unwrap(), (201..=1_200).collect::<Vec<_>>());
}

#[test]
fn clean_up_after_a_claim_keeps_what_records_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalEpochs::new(dir.path(), "p");
    let mut chain = claim(&store, 1);
    let kept = chain.names().next("parquet");
    seal(&store, &mut chain, change(1, adding(&kept)));
    let (warm, orphan) = (dir.path().join("warm/t"), chain.names().next("parquet"));
    std::fs::create_dir_all(&warm).unwrap();
    let ours = claim(&store, 2);
    let (new, other) = (ours.names().next("parquet"), "j+1-1-2-0.parquet".to_owned());
    let unfinished = format!("{orphan}.1_0.tmp");
    for file in [&kept, &orphan, &unfinished, &new, &other] {
        std::fs::write(warm.join(file), b"x").unwrap();
    }
    let state = dir.path().join("state");
    let deleted = clean_files(&world::LocalDisk, &store, "j/0", ours.header().generation, &[&dir.path().join("warm"), &state]).unwrap();
    assert_eq!(deleted, [orphan, unfinished]);
    let left = [kept, new, other].iter().all(|f| warm.join(f).exists());
    assert!(left);
}

#[test]
fn the_rows_of_an_exit_have_no_gap_and_files_go_when_all_of_their_rows_are_taken() {
    let file = |name: &str, first: u64, rows: u64| ExitFile { file: name.into(), first, rows, bytes: 1, checksum: 2 };
    let step = |watermark: i64, added: Option<ExitFile>, taken: Option<u64>| Change {
        outbox: [("x".to_owned(), ExitChange { watermark, added, taken })].into(),
        ..Change::default()
    };
    let mut whole = Whole::default();
    whole.fold(&step(5, Some(file("a", 0, 3)), None)).unwrap();
    whole.fold(&step(6, Some(file("b", 3, 2)), Some(4))).unwrap();
    assert_eq!(whole.files().into_iter().collect::<Vec<_>>(), ["b"], "one row of b is left");
    assert_eq!((whole.outbox["x"].next, whole.outbox["x"].watermark), (5, 6));
    assert!(whole.clone().fold(&step(6, Some(file("c", 6, 1)), None)).unwrap_err().contains("5 rows came before"));
    assert!(whole.clone().fold(&step(6, Some(file("c", 5, u64::MAX)), None)).unwrap_err().contains("last number"));
    assert!(whole.clone().fold(&step(5, None, None)).unwrap_err().contains("falls"));
    assert!(whole.clone().fold(&step(6, None, Some(6))).unwrap_err().contains("taken"));
    whole.fold(&step(6, None, Some(5))).unwrap();
    assert!(whole.files().is_empty());
}

#[test]
fn a_plan_may_grow_by_components_and_by_columns_alone() {
    let of = |parts: &[&str]| Fingerprint(parts.iter().map(|part| ((*part).to_owned(), "w".to_owned())).collect());
    let was = of(&["pipeline.lanes", "sources.a.key", "sources.a.columns.x", "processors.w.key", "tables.t.columns.x"]);
    let with = |part: &str| was.conflicts(&Fingerprint(was.0.iter().map(|(k, v)| (k.clone(), v.clone())).chain(of(&[part]).0).collect()));
    for grown in
        ["sources.a.columns.y", "tables.t.columns.a.b", "sources.b.key", "processors.v.key", "processors.wide.stage", "tables.tt.columns.x"]
    {
        assert!(with(grown).is_empty(), "{grown}");
    }
    for changed in ["sources.a.watermark.per", "processors.w.stage", "processors.w.columns.x", "tables.t.key", "pipeline.zone"] {
        assert_eq!(with(changed), [format!("{changed} is new")]);
    }
    assert_eq!(of(&["tables.t.columns.x"]).conflicts(&of(&["tables.u.columns.x"])), ["tables.t.columns.x is gone"]);
}

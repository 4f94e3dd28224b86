//! What is fuzzed of a pipeline's file: any text is read or refused with places that are in it. Beside `src/lib.rs`, since it needs the crate `pipelines`.

use pipelines::spec::Written;

/// A pipeline's file: what is read has a place for each of its sections, what is refused can be shown to a person.
pub(crate) fn spec(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variable = |name: &str| (!name.is_empty()).then(|| name.to_lowercase());
    match Written::read("pipeline.toml", text, &variable) {
        Ok(written) => {
            let place = written.place(&["sources", "a", "decode"], "event_time.path");
            assert!(text.get(place).is_some(), "a place outside of the text");
        }
        Err(problems) => {
            assert!(!problems.list.is_empty(), "refused without a reason");
            assert!(
                problems.list.iter().all(|problem| text.get(problem.span.clone()).is_some()),
                "a place outside of the text: {problems:?}"
            );
            // A picture costs more than all else.
            if xxhash_rust::xxh3::xxh3_64(data).is_multiple_of(256) {
                assert!(!problems.render(false).is_empty(), "nothing to show");
            }
        }
    }
}

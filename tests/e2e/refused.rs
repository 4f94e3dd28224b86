//! One data directory, one run: a second is refused with a message that names the directory, and changes nothing.

use std::time::Duration;

use tests::{Mosquitto, Tidegate};

#[test]
fn a_second_run_on_the_same_data_directory_is_refused_and_changes_nothing() {
    let broker = Mosquitto::start();
    let tidegate = Tidegate::new(&format!(
        r#"
[sources.floor]
type = "mqtt"
url = "{}"
topics = ["plant/{{device_id}}"]
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ t = {{ type = "float64" }} }}
key = ["device_id"]

[tables.readings]
inputs = ["floor"]
"#,
        broker.url()
    ));
    let mut first = tidegate.start(&[]);
    broker.wait_for_subscriber();
    first.wait_until_ready();
    let instance = || std::fs::read(tidegate.path("data/instance.json")).expect("a running instance says where it listens");
    let before = instance();

    let mut second = tidegate.start(&[]);
    let status = second.wait(Duration::from_secs(30));
    assert_eq!(status.code(), Some(1), "{}", second.log());
    assert!(second.log().contains("data"), "the message names the data directory: {}", second.log());

    assert!(first.is_running());
    assert_eq!(instance(), before);
    assert_eq!(broker.logged("Sending SUBACK to"), 1, "the second never came to the broker");
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), 0);
    first.stop();
}

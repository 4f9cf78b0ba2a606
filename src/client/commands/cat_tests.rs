use std::io::{Seek, Write};
use std::sync::Mutex;

use super::*;
use crate::client::commands::test_support::{TestClient, file};

/// An output that does this with every write.
struct ScriptedOutput<F>(F);

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for ScriptedOutput<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client that can download five bytes, with this output.
fn client(output: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> TestClient {
    let mut client = TestClient::logged_in();
    client.found("a", 5, 1);
    client.script().outcomes.insert(file("a"), || {
        let mut content = tempfile::tempfile().unwrap();
        content.write_all(b"12345").unwrap();
        content.rewind().unwrap();
        DownloadOutcome::Unnamed(Arc::new(content))
    });
    client.context.pipes.output = Some(Arc::new(Mutex::new(ScriptedOutput(output))));
    client
}

#[test]
fn a_content_goes_to_the_output_and_nothing_else() {
    let written = Arc::<Mutex<Vec<u8>>>::default();
    let output = written.clone();
    let client = client(move |bytes| {
        output.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    });
    assert_eq!(client.run("cat a"), (ExitCode::Success, String::new(), String::new()));
    assert_eq!(*written.lock().unwrap(), b"12345");
}

#[test]
fn an_output_that_fails_ends_the_command_unless_its_reader_has_closed_it() {
    let full = client(|_| Err(io::ErrorKind::StorageFull.into()));
    let (code, out, err) = full.run("cat a");
    assert_eq!((code, out.as_str()), (ExitCode::DiskFull, ""));
    assert!(err.starts_with("client: cannot write to standard output: ") && err.lines().count() == 1, "{err}");
    assert!(full.context.output.has_ended(), "no further command runs");
    let closed = client(|_| Err(io::ErrorKind::BrokenPipe.into()));
    assert_eq!(closed.run("cat a"), (ExitCode::Success, String::new(), String::new()));
    assert!(closed.context.output.has_ended());
}

#[test]
fn a_cancelled_command_is_no_success_even_if_the_download_is_complete() {
    let state = Arc::<Mutex<Option<Arc<crate::client::commands::CommandState>>>>::default();
    let cancels = state.clone();
    let client = client(move |_| {
        cancels.lock().unwrap().as_ref().unwrap().cancel();
        Ok(())
    });
    *state.lock().unwrap() = Some(client.context.state.clone());
    let (code, out, err) = client.run("cat a");
    assert_eq!((code, out.as_str(), err.as_str()), (ExitCode::Interrupted, "", "client: a: interrupted\n"));
}

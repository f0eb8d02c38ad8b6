"""`retort capture` from llama.cpp's own server, over loopback.

usage: served_teacher_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

1. The cache of a served GGUF is the cache of the same file read by Retort, within what halves and two programs' sums
   round, although answers fail: status 500, an answer that is cut, one that comes too late. Of the byte-level model of
   RUN, and of stories260K (a SentencePiece vocabulary) where the test data is.
2. A capture that is killed goes on and leaves the same bytes.
3. A server with a certificate that nobody vouches for is refused at once.
"""
import http.client, http.server, os, pathlib, shutil, signal, ssl, subprocess, sys, tempfile, threading, time
import urllib.parse
import h5py
import numpy as np

try:
    import xllamacpp as x
except ImportError:
    print("SKIPPED served teacher: no xllamacpp in this environment")
    sys.exit(77)

K, BLOCK = 50, 256
RECIPE = """
run: {{ name: served, seed: 3, threads: 1, text: ["{text}"] }}
data: {{ train: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 4 }}
capture: {{ kind: top_k, k: {k}, block_tokens: {block}, precision: fp32 }}
stages:
  - {{ name: text, kind: prepare, prepare: {{ tokenizer: "{tokenizer}", validation: 0 }} }}
  - {{ name: here, kind: capture, model: {{ from: "{model}" }} }}
  - name: served
    kind: capture
    capture:
      server: {{ url: "{url}", model: "{name}", api: llama.cpp, parallel: 3, timeout: 2, back_off: 0.05 }}
"""


def serve(path):
    p = x.CommonParams()
    p.model.path = str(path)
    p.n_ctx, p.n_parallel = 512, 3
    p.cpuparams.n_threads = 1
    p.warmup = False
    p.verbosity = 0
    p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
    return x.Server(p)


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on, and spoils some of the answers."""
    protocol_version = "HTTP/1.1"
    upstream, lock, count, faults = "", threading.Lock(), 0, 0

    def pass_on(self):
        with Proxy.lock:
            number, Proxy.count = Proxy.count, Proxy.count + 1
            fault = {13: "500", 29: "cut", 41: "late"}.get(number % 200)
            Proxy.faults += fault is not None
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        peer = http.client.HTTPConnection(Proxy.upstream)
        peer.request(self.command, self.path, body, {"Content-Type": "application/json"})
        reply = peer.getresponse()
        answer, status = reply.read(), reply.status
        peer.close()
        if fault == "500":
            answer, status = b"injected", 500
        elif fault == "late":
            time.sleep(3)
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer[:len(answer) // 2] if fault == "cut" else answer)
        except OSError:
            pass  # the client has given up
        self.close_connection = fault is not None

    do_GET = do_POST = pass_on

    def log_message(self, *_):
        pass


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # a client that was killed


def start(handler, context=None):
    server = Quiet(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def dense(cache, vocabulary):
    """Rows of probabilities, and of what the other ids hold."""
    rows = []
    for path in sorted(cache.glob("block-*.h5")):
        with h5py.File(path) as f:
            assert f.attrs["vocabulary"] == vocabulary, dict(f.attrs)
            ids, p, at = f["ids"][:], f["probs"][:].astype(np.float64), 0
            for count, rest in zip(f["labels"][:].tolist(), f["rest"][:]):
                row = np.zeros(vocabulary + 1)
                row[ids[at:at + count]], row[-1] = p[at:at + count], rest
                rows.append(row)
                at += count
    return np.array(rows)


def blocks(cache):
    return {path.name: path.read_bytes() for path in sorted(cache.glob("block-*.h5"))}


def retort_run(retort, verb, recipe, directory, stage=None, wait=True):
    command = [retort, verb, str(recipe), "--set", f"run.dir={directory}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    if not wait:
        return process
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


def check_model(retort, label, model, tokenizer, text, vocabulary, work):
    llama = serve(model)
    Proxy.upstream, Proxy.count, Proxy.faults = urllib.parse.urlsplit(llama.listening_address).netloc, 0, 0
    proxy = start(Proxy)
    source, recipe = work / f"{label}.txt", work / f"{label}.yaml"
    source.write_bytes(text)
    recipe.write_text(RECIPE.format(text=source, tokenizer=tokenizer, model=model, name=model, k=K, block=BLOCK,
                                    url=f"http://127.0.0.1:{proxy.server_port}/v1"))
    begun = time.time()
    code, said = retort_run(retort, "capture", recipe, work / label)
    assert code == 0, said[-4000:]
    assert Proxy.faults >= 6, Proxy.faults
    for fault in ("HTTP 500", "asked again in"):
        assert fault in said, said[-4000:]
    cache = work / label / "served" / "cache"
    theirs, ours = dense(cache, vocabulary), dense(work / label / "here" / "cache", vocabulary)
    assert theirs.shape == ours.shape and len(ours) > 3 * BLOCK, (theirs.shape, ours.shape)
    worst = np.abs(theirs - ours).max()
    # A half errs by 2^-12 of a value on each side, and llama.cpp's softmax and ours differ in the last digits.
    assert worst < 1e-3, worst
    print(f"served {label}: {len(ours)} tokens, {Proxy.count} requests with {Proxy.faults} faults, probabilities "
          f"within {worst:.1e} of the same file's here ({time.time() - begun:.1f} s)")
    return llama, proxy, recipe, blocks(cache)


def check_kill(retort, recipe, whole, work):
    directory = work / "killed"
    process = retort_run(retort, "capture", recipe, directory, wait=False)
    cache = directory / "served" / "cache"
    while not (cache / "block-00000.h5").exists():
        assert process.poll() is None, process.communicate()[0][-4000:]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = len(blocks(cache))
    assert 0 < left < len(whole), f"{left} of {len(whole)} blocks: the kill came too late to show anything"
    code, said = retort_run(retort, "capture", recipe, directory)
    assert code == 0, said[-4000:]
    # Which slot has read what differs with the kill, and so may the last bits of a sum.
    again = blocks(cache)
    assert again.keys() == whole.keys()
    worst = np.abs(dense(cache, 256) - dense(work / "bytes" / "served" / "cache", 256)).max()
    assert worst < 1e-3, worst
    print(f"served teacher: killed after {left} of {len(whole)} blocks, and finished")


def check_certificate(retort, recipe, work):
    if shutil.which("openssl") is None:
        print("served teacher: certificates are not checked, there is no openssl")
        return
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1",
                    "-keyout", work / "key.pem", "-out", work / "cert.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "cert.pem", work / "key.pem")
    server = start(Proxy, context)
    secure = work / "secure.yaml"
    text = recipe.read_text()
    begin = text.index("http://")
    secure.write_text(text[:begin] + f"https://127.0.0.1:{server.server_port}" + text[text.index('"', begin):])
    before = Proxy.count
    code, said = retort_run(retort, "capture", secure, work / "secure")
    assert code == 74 and "certificate" in said and "asked again" not in said, (code, said[-4000:])
    assert Proxy.count == before, "a request went to a server that nobody vouches for"
    print("served teacher: a certificate that nobody vouches for is refused")


def main(retort, run):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        text = (run / ".." / "text.txt").resolve().read_bytes()[:1000]
        llama, proxy, recipe, whole = check_model(retort, "bytes", run / "values" / "model.gguf", "bytes", text, 256, work)
        check_kill(retort, recipe, whole, work)
        check_certificate(retort, recipe, work)
        data = pathlib.Path(os.environ.get("RETORT_TEST_DATA", "../shared/data"))
        stories = data.resolve() / "models" / "stories260K" / "stories260K-f32.gguf"
        if stories.exists():
            story = ("Once upon a time, there was a little girl named Lily. She had a café of 3 dolls — and a dog.\n" * 25)
            check_model(retort, "stories260K", stories, stories, story.encode(), 512, work)
        else:
            print("served teacher: no stories260K without the test data")
    print("PASS served teacher")


main(sys.argv[1], pathlib.Path(sys.argv[2]))

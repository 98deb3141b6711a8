"""The measurements of `scripts/bench`, and why the comparison is fair.

Every row is a ratio of two things measured in one run on one machine. No row is compared with a figure from elsewhere.

* Reading (`reading.py`): a model of incompressible bytes in 200 members, as each archive format, with cat, cp and dd.
  The peers are a bare fusepy pass-through (`pass_through.py`: the same Python, binding and libfuse, with nothing but
  `os.pread`) and bindfs (C). Both read the very same archive bytes, copied out once and lying ready on disk. So the
  peers skip all the work of making an archive, and share only the cost of the mount itself. All sources are in the
  page cache, and were written back to disk before. Peers take turns within a round, in an order that rotates from
  round to round. Every turn is a new mount with a new daemon (ours with an empty index). Figures are medians over the
  rounds. The mount's own pages are dropped before the second read. A read counts only if the daemon's own counter of
  written bytes shows that it sent the whole file: an answer from the kernel's cache is an error of the benchmark, not
  a speed.
* Exporting (`exporting.py`): `cp` of a `.bentomodel` by a new daemon against one `bentoml models export` of the same
  model by the real BentoML, to the same disk.
* Compressing (`compressing.py`): the first `cp` of a `.tar.gz` and a `.zip`, by a new daemon with an empty index and
  `--compression always`, measuring included, against `tar c | pigz -1` and `zip -1` of the same files to the same disk;
  the sizes of both; a second `cp`; one export by BentoML as `.tar.gz`; random reads against the pass-through over the
  same bytes. The models are random f32 weights, a forest pickled by scikit-learn, JSON and text, and many small files.
  The first two also come in a size larger than the cache of compressed chunks.
* Scaling (`scaling.py`): the first bytes, `unzip -l` and `tar tf` of a 100 GiB model against a 1 MiB model with
  the same number of files, each by a new daemon that finds both models' measurements in its index; and the peak memory
  of a daemon that streams the 100 GiB. The big model's files are sparse: only their size counts here.
* Listing (`listing.py`): `ls -lR models/` against the pass-through of a tree with the same names and links, every file
  empty; `ls -l models/` of 10,000 names; how long a mount of 100,000 models takes to answer. Each by a new daemon.
* Stores and exports in S3 (`remote.py`): all at one SeaweedFS on loopback, started for the run (`servers.py`). The
  first `cp` of a `.tar` of a model in 200 objects, by a new daemon, against `rclone mount` and s3fs's `get` of the same
  bytes lying ready as one object; `bentofs export` against one `bentoml models export`; `bentofs list` against `rclone
  lsf -R` (which reads no model.yaml); `ls` and `ls -l` of `models/` against the same in `rclone mount`; and the bytes
  that a proxy counts on their way to a new daemon while `unzip` takes one file out of a large `.zip`.
* Checksums (`checking.py`): `sha256sum -c SHA256SUMS` in a new mount, and `bentofs verify`, against `sha256sum -c` of
  the same four archives lying ready on disk, one after the other.

A missed target is reported, never an error. Everything is kept in one temporary folder, removed at the end.
"""

"""The sentences of the page on the speed of serving."""

from __future__ import annotations

from typing import Final

INTRODUCTION: Final = """# The speed of serving

What `POST /score` costs for one user and 100 candidates, beside calling the same graph without a service, beside the
graph that libraries export, and beside other servers. The network is DIEN with 50 behaviours: embeddings of item and
category of 18 each, attention 80-40-1, evolution by an AUGRU of 36, a top of 200-80, 16 numbers of the context, all in
float32.

`ctrlift bench` measures all of it, `ctrlift bench --quick --json FILE` the first rows within a minute. This page is
written from the record; no number on it is typed by hand. A bar is the least that was promised before measuring, an aim
what was hoped for.
"""

DEFINITIONS: Final = """## What the numbers mean

- Every comparison first checks that all sides give the same scores to 1e-5; otherwise nothing is timed.
- Sides take turns, round by round, and a ratio is the median of the rounds' ratios; there are at least five rounds.
- CPU time is user plus system time: of this process for direct calls, of all processes of a server for requests, read
  from the kernel's clocks of those processes. What the store and the load generator take is in neither.
- The service's deadline and its time-outs towards the store are long while it is measured, so that no answer is given
  without the history that the store holds: it would be a cheaper one.
- One thread runs the graph everywhere, with every optimisation of ONNX Runtime.
- The history-repeated graph holds the same weights and computes every candidate as a row of its own, the way libraries
  for click prediction export such networks. It counts only if its products of matrices run at a fifth or more of the
  rate of one plain product in the same run.
- Throughput against the direct call sets requests a second beside direct calls a second in a loop: what is left of the
  graph's speed when it is served. A graph that takes more than `threads.loop_ms` runs in a thread beside the event
  loop, maybe on another core, and then the ratio says nothing of what a request costs; the CPU time of a direct call
  against that of a request stands below it for that, and would in turn flatter a worker that waits. Earlier records of
  these keys held the lower of the two.
- CPU of a request without the model is the difference of the two CPU times in the same rounds, with the faster way to
  run the graph: parsing, validation, the store, encoding, queueing, the answer, and whatever the graph loses by sharing
  the caches. A round's direct call is the mean of the loops before and after the service's slice. The graph's own time
  moves by a tenth between one moment and another on a shared machine, and all of that is in the difference; the next
  two say the same without it.
- CPU of a request outside its own run of the graph is seen in a second service, the same but for a clock around the
  run: the CPU time of its process less that of the runs, in the same requests. What the graph loses by sharing the
  caches is not in it. Processor time is counted by thread: a graph of less than `threads.loop_ms` runs on the event
  loop, any other in the engine's thread.
- CPU of a request where the model is one linear layer: a bundle of the same declaration, served in the same way, whose
  graph takes about as long as a call of the runtime takes at all. Nothing large runs between two requests, so the
  caches stay warm: it is what the service's own code costs at its best.
- Two workers against one: 16 clients; two are set beside the mean of one before and after them. On two cores the
  generator and the store compete with the workers, so the ratio that two undisturbed cores would give, from CPU time a
  request, stands beside it.
- Private memory is what the kernel counts as shared with no other process, after both workers have answered enough
  requests to have read nearly all of the table: what only one has read yet would count as its own.
  The 256 MB of embeddings are rows that item ids are hashed into. The vocabulary curve has a row and an entry of the
  vocabulary for every item instead.
- The load generator is a process of its own on plain sockets with requests written beforehand. A closed loop sends the
  next request of a connection when the last one is answered. An open loop sends at random times, and a latency counts
  from the time at which the request should have been sent. It is compiled where there is a C++ compiler, because one in
  Python takes several times as much of a core that the server's threads need, and empties its caches; the record says
  of each part which one it was. Every server is loaded by the same one.
- Other servers do the same work: they read the user's history from the same embedded Valkey with redis-py, in the
  store's own record format, and answer JSON. They look ids up in one dictionary and check nothing beyond what their
  framework does; the service checks everything. All that is in their favour. mosec and LitServe run synchronous code in
  their workers and use the synchronous client. Each runs one process for the graph; what their front processes take
  beside it on the second core is in their CPU time and in the column of cores.
- The comparison with the best framework is on the same graph with ONNX Runtime on both sides; the one with plain
  FastAPI sets the whole service, kernel included, beside the whole of what most teams write first: pydantic, and the
  history-repeated graph in ONNX Runtime. There is one worker on either side, and both ratios stand in the table: of
  requests a second, which is what is promised, and of CPU time.
"""

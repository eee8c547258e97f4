import { expect, test } from "bun:test";
import { createFileRegistry } from "@bufbuild/protobuf";
import { Registry } from "prom-client";
import { silentLogger } from "../../services/kit/log.ts";
import { eventually } from "../../services/kit/testing.ts";
import { createRelayMetrics } from "./metrics.ts";
import type { Ownership } from "./ownership.ts";
import { startRelaySource } from "./start-relay.ts";
import type { OutboxStore } from "./store.ts";

/** An ownership that the test gives and takes. */
class GivenOwnership implements Ownership {
  #isOwner = true;
  #listener: (isOwner: boolean) => unknown = () => undefined;

  isFresh = () => this.#isOwner;
  isDatabaseReachable = () => true;
  close = async () => undefined;

  onChange(listener: (isOwner: boolean) => unknown): void {
    this.#listener = listener;
  }

  change(isOwner: boolean): void {
    this.#isOwner = isOwner;
    void this.#listener(isOwner);
  }
}

test("a replica that loses its source in mid-pass is ready as soon as it waits for it again, although the pass fails", async () => {
  const ownership = new GivenOwnership();
  const reads: PromiseWithResolvers<never>[] = [];
  const store: Partial<OutboxStore> = {
    readHeldKeysAndPending() {
      const read = Promise.withResolvers<never>();
      reads.push(read);
      return read.promise;
    },
    markPublished: async () => 0,
    close: async () => undefined,
  };
  const relay = startRelaySource({
    ...{ name: "test", topic: "test", ceSource: "/test", encoding: "protobuf", registry: createFileRegistry() },
    ...{ store: store as OutboxStore, ownership, log: silentLogger, metrics: createRelayMetrics(new Registry()) },
    openProducer: async () => ({
      partitionsOf: () => undefined,
      send: async () => undefined,
      close: async () => undefined,
    }),
    pollIntervalMs: 1,
  });
  await eventually(() => expect(reads).toHaveLength(1));
  expect(relay.isHealthy()).toBe(true);

  // The server has ended its connections while it was suspended: it learns first that it is no longer the owner.
  ownership.change(false);
  reads[0]?.reject(new Error("Query inactivity timeout"));
  for (let turn = 0; turn < 20; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    expect(relay.isHealthy()).toBe(true);
  }

  // As the owner again, a pass that fails counts.
  ownership.change(true);
  await eventually(() => expect(reads).toHaveLength(2));
  reads[1]?.reject(new Error("Query inactivity timeout"));
  await eventually(() => expect(relay.isHealthy()).toBe(false));
  await eventually(() => expect(reads).toHaveLength(3));
  const closing = relay.close();
  reads[2]?.reject(new Error("closed"));
  await closing;
});

/** The side of Order that clients call: the RPCs with what they need. */
import type { Registry as Metrics } from "prom-client";
import type { Outbox } from "../../relay/outbox/append.ts";
import type { HintSender } from "../../relay/outbox/hint.ts";
import { type Database, openDatabase } from "../kit/database.ts";
import type { Logger } from "../kit/log.ts";
import type { Routes } from "../kit/server.ts";
import type { CommandDeps } from "./commands.ts";
import type { SagaMetrics } from "./metrics.ts";
import { createOrderReader } from "./order-reader.ts";
import { createOrderPlacer } from "./place-orders.ts";
import { startPriceList } from "./prices.ts";
import { routes } from "./rpc.ts";
import { createOrderWatch, type OrderWatch } from "./watch.ts";

export interface OrderApi {
  readonly routes: Routes;
  readonly watch: Pick<OrderWatch, "mayHaveChanged" | "anyMayHaveChanged">;
  /** What the commands need. Another caller brings its own database. */
  readonly commandDeps: CommandDeps;
  readonly databases: OrderDatabases;
  arePricesLoaded(): boolean;
  /** Ends the streams, so that the server can close, and whatever else runs without a call. */
  stop(): void;
  /** After `stop` and the server: waits for the placements under way and closes the databases. */
  close(): Promise<void>;
}

/** The connection pools of the RPCs. None of them waits for another, and the sagas have one more. */
export interface OrderDatabases {
  /** PlaceOrder's own, so that no other call can keep it from accepting orders. */
  readonly placements: Database;
  /** GetOrder and WatchOrder, which read by the group and wait for no lock, and the price list. */
  readonly reads: Database;
  /** CancelOrder, which may wait for a locked order. */
  readonly commands: Database;
}

/** Opens the API. Call it once per process. */
export function openOrderApi(deps: {
  readonly databaseUrl: string;
  readonly outbox: Outbox;
  readonly hints: Pick<HintSender, "send">;
  readonly sagaMetrics: SagaMetrics;
  /** After this time an undecided order is timed out. */
  readonly deadlineMs: number;
  readonly newId: () => string;
  readonly log: Logger;
  readonly metrics: Metrics;
}): OrderApi {
  const { outbox, hints, sagaMetrics, newId, log } = deps;
  const databases = openDatabases(deps.databaseUrl);
  const watch = createOrderWatch({ database: databases.reads, log, metrics: deps.metrics });
  const prices = startPriceList(databases.reads, log);
  const placer = createOrderPlacer({
    database: databases.placements,
    outbox,
    deadlineMs: deps.deadlineMs,
    onPlaced(count) {
      hints.send();
      sagaMetrics.recordPlaced(count);
    },
  });
  const commandDeps: CommandDeps = {
    database: databases.commands,
    outbox,
    newId,
    sagaMetrics,
    onChanged(orderIds) {
      hints.send();
      watch.mayHaveChanged(orderIds);
    },
  };
  return {
    routes: routes({ placer, prices, readOrder: createOrderReader(databases.reads), watch, commandDeps, newId }),
    watch,
    commandDeps,
    databases,
    arePricesLoaded: prices.isLoaded,
    stop() {
      watch.close();
      prices.close();
    },
    async close() {
      await placer.close();
      await Promise.allSettled(Object.values(databases).map((database) => database.close()));
    },
  };
}

function openDatabases(url: string): OrderDatabases {
  return {
    // One for the group of placements, and one for the health check.
    placements: openDatabase({ url, connectionsMax: 2 }),
    // One each for GetOrder, new watches, open watches, and the price list.
    reads: openDatabase({ url, connectionsMax: 4 }),
    commands: openDatabase({ url, connectionsMax: 4 }),
  };
}

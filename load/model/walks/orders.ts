/** The orders of a walk and the stock that they share: what the services' databases hold, and their transactions. */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { OrderPlaced } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import type { InventoryMessage, StockLevels } from "../../../services/inventory/domain.ts";
import type { OrderCommand } from "../../../services/order/domain.ts";
import type { GatewayCall } from "../../../services/payment/domain.ts";
import { addEvent, type EventSummary, noEvents } from "../world/event-summary.ts";
import { type Account, emptyAccount } from "../world/gateway.ts";
import { checkOrder, checkStock, type OrderSnapshot } from "../world/promises.ts";
import { type Domains, type Incoming, initialRows, type Rows, serviceModels } from "../world/services.ts";
import type { Journal } from "./journal.ts";
import type { Relay } from "./relay.ts";
import type { EventRecord } from "./topic.ts";

/** An order; all but `placed` changes during the walk. */
export interface WalkedOrder extends OrderSnapshot {
  rows: Rows;
  account: Account;
  events: EventSummary;
  /** A worker has claimed the payment's call, and its lease has not expired. */
  isLeased: boolean;
}

export class Orders {
  readonly #domains: Domains;
  readonly #initialStock: StockLevels;
  readonly #relay: Relay;
  readonly #journal: Journal;
  readonly #all: WalkedOrder[] = [];
  #stock: StockLevels;

  constructor(domains: Domains, stock: StockLevels, relay: Relay, journal: Journal) {
    this.#domains = domains;
    this.#initialStock = stock;
    this.#stock = stock;
    this.#relay = relay;
    this.#journal = journal;
  }

  get all(): readonly WalkedOrder[] {
    return this.#all;
  }

  at(index: number): WalkedOrder {
    const order = this.#all[index];
    if (order === undefined) throw new Error(`There is no order ${index}.`);
    return order;
  }

  place(placed: OrderPlaced): void {
    const rows = initialRows(this.#domains, placed.orderId);
    const order = { placed, rows, account: emptyAccount, events: addEvent(noEvents, placed), isLeased: false };
    this.#relay.append("order", this.#all.length, placed);
    this.#all.push(order);
    const lines = placed.lines.map(({ sku, quantity }) => `${quantity} ${sku}`).join(", ");
    this.#journal.step(() => `${placed.orderId} is placed: ${lines}`);
  }

  /** A command from outside: the client cancels the order, or its deadline passes. */
  command(index: number, command: OrderCommand): void {
    const order = this.at(index);
    this.handle("order", index, command);
    this.#journal.step(
      () => `${order.placed.orderId}: ${command.$typeName}, and the order is ${order.rows.order.status}`,
    );
    checkOrder(order);
  }

  /** The service's transaction for one message. */
  handle(service: ServiceName, index: number, message: Incoming): void {
    this.#stock = this.#commit(service, index, message, this.#stock);
  }

  /**
   * The service's transaction for a batch of events. Like the real handler, it loads the stock levels once, before
   * anything is decided, and only those that the events concern.
   */
  handleBatch(service: ServiceName, records: readonly EventRecord[]): void {
    const before = service === "inventory" ? this.#levelsFor(records) : this.#stock;
    let levels = before;
    for (const { index, event } of records) levels = this.#commit(service, index, event, levels);
    if (levels !== before) {
      this.#stock = new Map([...this.#stock, ...levels]);
      const reservations = this.#all.map(({ rows }) => rows.inventory);
      checkStock(this.#initialStock, this.#stock, reservations);
    }
    for (const { index } of records) checkOrder(this.at(index));
  }

  /** The call to the gateway that the order's payment wants. */
  nextCall(order: WalkedOrder): GatewayCall | undefined {
    return this.#domains.payment.nextCall(order.rows.payment);
  }

  #commit(service: ServiceName, index: number, message: Incoming, stock: StockLevels): StockLevels {
    const order = this.at(index);
    const keyBefore = this.nextCall(order)?.idempotencyKey;
    const committed = serviceModels[service].commit(this.#domains[service], order.rows[service], message, stock);
    order.rows = { ...order.rows, [service]: committed.after };
    // A newly wanted call is due at once, whatever call is in flight.
    if (this.nextCall(order)?.idempotencyKey !== keyBefore) order.isLeased = false;
    for (const event of committed.published) {
      order.events = addEvent(order.events, event);
      this.#relay.append(service, index, event);
    }
    return committed.stock;
  }

  #levelsFor(records: readonly EventRecord[]): StockLevels {
    const { skusTouchedBy } = this.#domains.inventory;
    const skus = new Set(
      records.flatMap(({ index, event }) => skusTouchedBy(this.at(index).rows.inventory, event as InventoryMessage)),
    );
    return new Map([...this.#stock].filter(([sku]) => skus.has(sku)));
  }
}

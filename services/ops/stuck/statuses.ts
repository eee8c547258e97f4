/** The statuses that this version knows. A newer version of a service, in a rolling release, may write others. */
import type { ReservationStatus } from "../../inventory/domain.ts";
import type { OrderStatus } from "../../order/domain.ts";
import type { PaymentStatus } from "../../payment/domain.ts";

const known: Readonly<Record<OrderStatus | ReservationStatus | PaymentStatus, true>> = {
  // Order
  PENDING: true,
  STOCK_RESERVED: true,
  COMPLETED: true,
  COMPENSATING: true,
  FAILED: true,
  // Inventory
  NONE: true,
  HELD: true,
  REFUSED: true,
  RELEASED: true,
  SOLD: true,
  CANCELLED: true,
  // Payment
  NOTED: true,
  AUTHORIZING: true,
  AUTHORIZED: true,
  DECLINED: true,
  VOIDING: true,
  VOID_REFUSED: true,
  VOIDED: true,
};

/** The status of a row, with a remark if this version does not know it. */
export function describeStatus(status: string): string {
  return Object.hasOwn(known, status) ? status : `${status}, a status that this version does not know`;
}

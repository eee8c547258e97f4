import type { Instances } from "../../../services/stack/settings.ts";
import {
  belowInsyncMin,
  controllerFrozen,
  controllerKilled,
  coordinatorFrozen,
  coordinatorKilled,
  leaderFrozen,
  leaderKilled,
  rollingRestart,
  twoBrokersFrozen,
} from "./brokers.ts";
import { diskFull } from "./database.ts";
import type { FaultKind } from "./fault.ts";
import { gatewayErrors, gatewaySlow, gatewayThrottled, gatewayTimeouts } from "./gateway.ts";
import { instanceFrozen } from "./instances.ts";
import { halfOpen, latency, refused, reset } from "./network.ts";
import { frozenIntent } from "./payment-intent.ts";
import { brokerRestart, databaseRestart, freeze, kill } from "./processes.ts";
import { offsetsBack, producedAgain, rebalance } from "./redelivery.ts";

/** The kinds of faults that any stack allows. Their order matters: together with the seed it fixes the plan. */
export const faultKinds: readonly FaultKind[] = [
  kill,
  freeze,
  frozenIntent,
  latency,
  reset,
  halfOpen,
  refused,
  brokerRestart,
  databaseRestart,
  producedAgain,
  offsetsBack,
  rebalance,
  gatewayErrors,
  gatewayTimeouts,
  gatewaySlow,
  gatewayThrottled,
  diskFull,
];

/** The kinds that need several brokers. */
export const brokerFaultKinds: readonly FaultKind[] = [
  leaderKilled,
  leaderFrozen,
  controllerKilled,
  controllerFrozen,
  coordinatorKilled,
  coordinatorFrozen,
  rollingRestart,
  belowInsyncMin,
  twoBrokersFrozen,
];

/** The kinds that need two instances of every process. */
export const instanceFaultKinds: readonly FaultKind[] = [instanceFrozen];

/** The kinds that a stack of this size allows. */
export function faultKindsOf(size: { readonly brokers: readonly string[]; readonly instances: Instances }) {
  return [
    ...faultKinds,
    ...(size.brokers.length > 1 ? brokerFaultKinds : []),
    ...(Object.values(size.instances).every((count) => count > 1) ? instanceFaultKinds : []),
  ];
}

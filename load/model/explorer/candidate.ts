import type { SagaState } from "./saga-state.ts";

/** One order's saga, and the stock that all orders share. */
export interface Situation {
  readonly state: SagaState;
  readonly stock: number;
}

/** Something that can happen next. */
export interface Candidate {
  /** What happens, as a counterexample shows it. */
  readonly label: string;
  /** False for what the saga does not need in order to end: commands, redeliveries, failures. */
  readonly isProgress: boolean;
  /** Computes what follows. @throws Violation if that breaks a promise. */
  take(): Situation;
}

/**
 * The steps of payment's worker and of the gateway.
 *
 * The worker claims a call whenever the payment wants one, even while another call is in flight: the lease of that call
 * may have expired, or its process may be frozen. An abandoned call may still arrive, at any later time or never. An answer
 * may get lost, and a void may be refused. The number of calls in flight at once has a limit; the number of calls one
 * after the other has none.
 */
import { unreachable } from "../../../services/kit/errors.ts";
import type { GatewayOutcome } from "../../../services/payment/domain.ts";
import { answer, asksBank, IdempotencyKeys, voidRefused } from "../world/gateway.ts";
import type { Domains } from "../world/services.ts";
import type { Candidate, Situation } from "./candidate.ts";
import { Memo } from "./memo.ts";
import { added, type Call, type SagaState, type SagaStates, type Values } from "./saga-state.ts";
import type { Transactions } from "./transactions.ts";

export interface GatewayOptions {
  readonly domains: Domains;
  /** How many calls of one order may be in flight at once. */
  readonly callsMax: number;
  /** Whether calls time out, workers die, answers get lost and voids are refused. */
  readonly areCallsUnreliable: boolean;
}

/** The gateway's account after a call has arrived, and the call with its answer. */
interface Arrival {
  readonly account: number;
  readonly answered: number;
}

export class GatewaySteps {
  readonly #options: GatewayOptions;
  readonly #values: Values;
  readonly #states: SagaStates;
  readonly #transactions: Transactions;
  readonly #arrivals = new Memo<Arrival>();
  readonly #keys = new IdempotencyKeys();

  constructor(options: GatewayOptions, values: Values, states: SagaStates, transactions: Transactions) {
    this.#options = options;
    this.#values = values;
    this.#states = states;
    this.#transactions = transactions;
  }

  *stepsOf(situation: Situation): Iterable<Candidate> {
    const { calls } = situation.state;
    yield* this.#claim(situation);
    for (const [at, id] of calls.entries()) {
      const call = this.#values.calls.valueOf(id);
      const others = calls.filter((_, other) => other !== at);
      switch (call.stage) {
        case "SENT":
          yield* this.#arrive(situation, call, others);
          if (this.#options.areCallsUnreliable) yield* this.#fail(situation, call, others);
          break;
        case "ABANDONED":
          yield* this.#arriveLate(situation, call, others);
          break;
        case "ANSWERED":
          yield* this.#record(situation, call.outcome, others);
          break;
        default:
          unreachable(call);
      }
    }
  }

  *#claim({ state, stock }: Situation): Iterable<Candidate> {
    const row = this.#states.rowOf(state, "payment");
    // Unlike decide, nextCall is not asked twice. If its key is new each time, the gateway's account shows it.
    const call = this.#options.domains.payment.nextCall(row);
    if (call === undefined || state.calls.length >= this.#options.callsMax) return;
    yield {
      label: `payment's worker claims the ${call.kind}`,
      isProgress: true,
      take: () => {
        this.#keys.claim(call, this.#states.placedOf(state).orderId);
        return { state: { ...state, calls: added(state.calls, this.#callId({ stage: "SENT", call })) }, stock };
      },
    };
  }

  *#arrive({ state, stock }: Situation, { call }: Call, others: readonly number[]): Iterable<Candidate> {
    for (const bank of this.#bankAnswers(state, call)) {
      yield {
        label: `the ${call.kind} reaches the gateway${bank.label}`,
        isProgress: true,
        take: () => {
          const { account, answered } = this.#answer(state.account, call, bank.accepts);
          return { state: { ...state, account, calls: added(others, answered) }, stock };
        },
      };
    }
  }

  *#arriveLate({ state, stock }: Situation, { call }: Call, others: readonly number[]): Iterable<Candidate> {
    for (const bank of this.#bankAnswers(state, call)) {
      yield {
        label: `the abandoned ${call.kind} reaches the gateway${bank.label}`,
        isProgress: true,
        take: () => {
          const { account } = this.#answer(state.account, call, bank.accepts);
          return { state: { ...state, account, calls: others }, stock };
        },
      };
    }
    yield {
      label: `the abandoned ${call.kind} is lost`,
      isProgress: true,
      take: () => ({ state: { ...state, calls: others }, stock }),
    };
  }

  *#fail({ state, stock }: Situation, { call }: Call, others: readonly number[]): Iterable<Candidate> {
    const { kind } = call;
    if (kind === "void") {
      yield {
        label: "the gateway refuses the void",
        isProgress: false,
        take: () => {
          const answered = this.#callId({ stage: "ANSWERED", call, outcome: voidRefused });
          return { state: { ...state, calls: added(others, answered) }, stock };
        },
      };
    }
    const abandoned = { ...state, calls: added(others, this.#callId({ stage: "ABANDONED", call })) };
    yield {
      label: `the ${kind} times out and stays in flight`,
      isProgress: false,
      take: () => this.#tellPayment({ state: abandoned, stock }, { $typeName: "GatewayUnknown" }),
    };
    yield {
      label: `the worker dies and its ${kind} stays in flight`,
      isProgress: false,
      take: () => ({ state: abandoned, stock }),
    };
  }

  *#record({ state, stock }: Situation, outcome: GatewayOutcome, others: readonly number[]): Iterable<Candidate> {
    const done = { state: { ...state, calls: others }, stock };
    yield {
      label: `the worker records ${outcome.$typeName}`,
      isProgress: true,
      take: () => this.#tellPayment(done, outcome),
    };
    if (this.#options.areCallsUnreliable) {
      yield { label: `the answer ${outcome.$typeName} is lost`, isProgress: false, take: () => done };
    }
  }

  /** Both answers if the gateway would ask the payer's bank; otherwise one step, whatever the bank would say. */
  #bankAnswers(state: SagaState, call: Call["call"]): readonly { readonly accepts: boolean; readonly label: string }[] {
    if (!asksBank(this.#values.accounts.valueOf(state.account), call)) return [{ accepts: true, label: "" }];
    return [
      { accepts: true, label: ", the bank accepts" },
      { accepts: false, label: ", the bank declines" },
    ];
  }

  #answer(account: number, call: Call["call"], accepts: boolean): Arrival {
    const { accounts } = this.#values;
    const key = this.#callId({ stage: "SENT", call }) * 2 + (accepts ? 1 : 0);
    return this.#arrivals.get(account, key, () => {
      const after = answer(accounts.valueOf(account), call, accepts);
      const answered = this.#callId({ stage: "ANSWERED", call, outcome: after.outcome });
      return { account: accounts.idOf(after.account), answered };
    });
  }

  #tellPayment(situation: Situation, outcome: GatewayOutcome): Situation {
    return this.#transactions.handle("payment", situation, this.#values.messages.idOf(outcome));
  }

  #callId(call: Call): number {
    return this.#values.calls.idOf(call);
  }
}

"""Channel pruning of a plain loop: a configuration file drives the engine."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.masking import Images, Masking
from lightning_prune.engine.next_action import Mask
from lightning_prune.engine.phase import Phase
from lightning_prune.engine.ratio_policy import RatioPolicy
from lightning_prune.engine.steps import RatioSteps
from lightning_prune.engine.verified_cut import verified_cut
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loop.channel_sparsity_args import ChannelSparsityArgs
from lightning_prune.loop.cut_record import assert_cut, cut_record, tells_widths
from lightning_prune.loop.front_end import LoopFrontEnd
from lightning_prune.loop.pruning_methods import criterion_of, penalty_of
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.layers.layer_rule import select_groups
from lightning_prune.policies.penalties.channel_regularization import ChannelRegularization
from lightning_prune.policies.selection.ranking import Ranking
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.optimizer import assert_bound, rebind_optimizer
from lightning_prune.surgery.recorded_attributes import is_shown_by_shapes
from lightning_prune.surgery.stale_parameters import StaleParameters
from lightning_prune.surgery.trial_cut import try_groups, what_is_left_out

Log = Callable[[str], None]


class ChannelPruner:
    """Penalizes, masks and cuts channels as a configuration says.

    Args:
        front: The model and what the loop gives away.
        args: Section of the configuration.
        on_cut: Called with what was cut, as one line.

    Attributes:
        reset_optimizer: True once channels were cut: make a new optimizer and set it to False.
        groups: The channel groups of the dense model.
    """

    def __init__(self, front: LoopFrontEnd, args: ChannelSparsityArgs, on_cut: Log) -> None:
        self.reset_optimizer = False
        self.groups = ChannelGroups({})
        self.cut_line = args.log_str if args.reach_mac_target else ""
        self._front, self._args, self._on_cut = front, args, on_cut
        self._state = MaskState()
        self._run: Masking[RatioPolicy] | None = None
        self._regularization: ChannelRegularization | None = None
        self._stale = StaleParameters()
        self._unchecked = self.cut_line
        self._warned = False
        if not args.is_prune:
            return
        if not args.reach_mac_target:
            self._run = self._begin()
        elif not tells_widths(args.log_str):
            warnings.warn(
                "channel_sparsity_args.reach_mac_target is true, so that nothing is pruned, and "
                f"log_str={args.log_str!r} does not say what was cut: is this model the cut one? "
                "If it is dense, set reach_mac_target to false",
                stacklevel=4,
            )

    @property
    def done(self) -> bool:
        """Return whether nothing is left to do: the model was cut, or everything was freed."""
        return self._run is None

    @property
    def plan(self) -> PruningPlan:
        """What is held at zero; after the cut what was cut."""
        return self._state.plan

    @property
    def names(self) -> tuple[str, ...]:
        """Return the groups that are pruned; none once that is done."""
        names = () if self._run is None else self._run.policy.selection.names
        return tuple(name for name in names if name not in self._state.freed)

    def _begin(self) -> Masking[RatioPolicy]:
        front, args, model = self._front, self._args, self._front.model
        front.check_batches("compensate_images", args.compensate_images)
        front.check_batches("recalibrate_images", args.recalibrate_images)
        criterion, example = criterion_of(args), front.example()
        front.check_needs(criterion)
        traced = trace_groups(model, example, front.call, attention=args.attention)
        traced = traced.with_norms(args.norms)
        # A process that is slower would refuse more, where the time of the trial ends.
        self.groups, refused = front.agreed(try_groups(model, example, traced, front.call))
        if refused:
            warnings.warn(what_is_left_out(refused), stacklevel=5)
        names = select_groups(args.layers or None, model, self.groups)
        macs = MacModel.of(model, self.groups, example, front.call)
        front.check_batches("measured", int(args.measured))
        ranking: Ranking = "global" if args.global_pruning else "local"
        if args.isomorphic or args.measured:
            ranking = "measured" if args.measured else "isomorphic"
        selection = RatioSelection(
            self.groups,
            names,
            macs,
            criterion,
            ranking,
            (1 - args.max_pruning_rate, 1.0),
            args.block_size,
            args.fast_widths,
        )
        selection.check(model, args.mac_target)
        policy = RatioPolicy(model, selection, args.mac_target)
        steps = RatioSteps(args.schedule, names, args.hold_epochs, catch_up=True)
        images = Images(args.gradient_images, args.compensate_images, args.recalibrate_images)
        run = Masking(front, policy, steps, images)
        self._penalize(run)
        return run

    def _penalize(self, run: Masking[RatioPolicy]) -> None:
        strength, selection = self._args.regularize, run.policy.selection
        names = tuple(name for name in selection.names if name not in self._state.freed)
        self._regularization = None
        if names and strength.gamma * (strength.reg + strength.mac_reg) > 0:
            self._regularization = ChannelRegularization(
                self._front.model,
                self.groups,
                names,
                penalty_of(self._args),
                strength.reg,
                strength.mac_reg,
                strength.gamma,
                selection.macs,
            )
            self._regularization.set_masked(self.plan)

    # --- what a loop asks for ---------------------------------------------------------------

    def regularize(self, scale: Tensor | float | None = None) -> None:
        """Add the penalty's gradient, until the cut."""
        if self.done:
            self.assert_narrow()
        elif self._regularization is not None:
            self._regularization.apply(scale=scale)
        elif not self._warned:
            self._warned = True
            warnings.warn(
                "channel_regularize has no effect: channel_sparsity_args.regularize has reg and "
                "mac_reg 0, or gamma 0",
                stacklevel=3,
            )

    def prune(
        self, epoch: int, log: Log, optimizers: Iterable[Optimizer] = ()
    ) -> PrunedChannels | None:
        """Mask what is due at an epoch, or cut; return what was cut."""
        run = self._run
        if run is None:
            self.assert_narrow()
            return None
        self.hold()
        before, self._state = self._state, run.advance(self._state, epoch)
        if self._state.step_epoch != before.step_epoch:
            self._log_step(epoch, log)
        return self._cut(run, epoch, log, optimizers) if self._state.finished else None

    def prune_now(self, log: Log) -> PrunedChannels | None:
        """Mask and cut in one go, before the first epoch, where the file says so."""
        run = self._run
        if run is None or not self._args.at_init:
            return None
        self._state = run.step(self._state, Mask(self._args.schedule.final_ratio), 0)
        if self._state.failed_epoch is not None:
            raise ValueError("nothing can be cut before the first epoch: see the warning before")
        self._log_step(0, log)
        return self._cut(run, 0, log, ())

    def unprune(self, names: Iterable[str] | None = None) -> None:
        """Lift masks: rows, norms and their statistics are as they were, and train freely.

        The groups are not masked again.

        Args:
            names: Groups to free; None: all that are masked.

        Raises:
            KeyError: a group has no mask.
        """
        run = self._run
        if run is None or not run.live.plan.keep:
            warnings.warn("unprune has no effect: no channel is masked", stacklevel=3)
            return
        self._state = run.free(self._state, list(run.live.plan.keep if names is None else names))
        self._penalize(run)
        if not self.names:
            self._run = None

    def hold(self) -> None:
        """Zero what is masked."""
        if self._run is not None:
            self._run.live.apply()

    def after_step(self, optimizer: Optimizer) -> None:
        """Hold the masks; refuse an optimizer that missed the cut."""
        self._stale.check(optimizer)
        self.hold()

    # --- inside -----------------------------------------------------------------------------

    def _log_step(self, epoch: int, log: Log) -> None:
        state, plan = self._state, self.plan
        if self._regularization is not None:
            self._regularization.set_masked(plan)
        masked = sum(len(plan.removed(name)) for name in plan.keep)
        log(
            f"epoch {epoch}: ratio {state.ratio:.3f}, {masked} of {sum(plan.channels.values())} "
            f"channels masked, {state.macs_fraction:.1%} of the dense MACs remain"
            + (" (target met)" if state.met else "")
        )

    def _cut(
        self, run: Masking[RatioPolicy], epoch: int, log: Log, optimizers: Iterable[Optimizer]
    ) -> PrunedChannels:
        """Remove exactly the masked channels, and carry optimizers across."""
        front, fraction, target = self._front, self._state.macs_fraction, self._args.mac_target
        if target is not None and not self._state.met:
            warnings.warn(
                f"the schedule is over with the MAC target unmet: {fraction:.1%} of the dense MACs "
                f"remain (target {target:.1%}), and that is what is cut. Raise global_prune_rate "
                "or max_pruning_rate, lower block_size, or select more layers",
                stacklevel=4,
            )
        if not self.plan:
            warnings.warn("the schedule is over and no channel is masked: not cut", stacklevel=4)
        run.live.apply()
        if not is_shown_by_shapes(self.groups, self.plan):
            track_architecture(front.model)
        pruned = verified_cut(
            front.model, self.groups, self.plan, front.example(), forward=front.call
        )
        optimizers = list(optimizers)
        for optimizer in optimizers:
            rebind_optimizer(optimizer, pruned)
        assert_bound(optimizers, pruned)
        self._stale = StaleParameters(pruned.parameters)
        self._run, self._regularization = None, None
        self._state = replace(self._state, phase=Phase.CUT, originals=None, finished=True)
        self.reset_optimizer = True
        self.cut_line = cut_record(epoch, fraction, target, self.plan, self.groups)
        log(self.cut_line)
        self._on_cut(self.cut_line)
        return pruned

    def assert_narrow(self) -> None:
        """Check once that a model which is said to be cut is as narrow as that.

        Raises:
            RuntimeError: a layer is as wide as before the cut.
        """
        if self._unchecked:
            assert_cut(self._front.model, self._unchecked)
            self._unchecked = ""

    def state_dict(self) -> dict[str, Any]:
        """Return masks and progress as plain data."""
        return self._state.state_dict() | {"done": self.done, "cut_line": self.cut_line}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore masks and progress; a cut model's weights are loaded apart.

        Raises:
            RuntimeError: the state is from before the cut, and the file says it was made.
        """
        if self._args.is_prune and self.done and not state["done"]:
            raise RuntimeError(
                "the loaded state is from before the cut, and pruning_config.json has "
                "reach_mac_target true: set it to false to continue from this state"
            )
        if "version" not in state:
            state = {**state, "cut": bool(state["cut_line"]), "step_epoch": state["acted"]}
        self._state, self.cut_line = MaskState.from_state_dict(state), state["cut_line"]
        self._unchecked = self.cut_line
        if state["done"]:
            self._run, self._regularization = None, None
            if self.cut_line and not self._args.reach_mac_target:
                self._on_cut(self.cut_line)
        elif self._run is not None and self._state.originals is not None:
            self._state = self._run.hold(self._state)
            self._penalize(self._run)

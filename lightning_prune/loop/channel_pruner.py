"""Channel pruning of a plain loop: what is due at an epoch, and the state that it needs."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.engine.verified_cut import verified_cut
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loop.channel_sparsity_args import ChannelSparsityArgs
from lightning_prune.loop.cut_record import assert_cut, cut_record, tells_widths
from lightning_prune.loop.forward_pass import Forward, example_inputs
from lightning_prune.loop.pruning_methods import criterion_of, penalty_of
from lightning_prune.loop.stale_parameters import StaleParameters
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.layers.layer_rule import select_groups
from lightning_prune.policies.penalties.channel_regularization import ChannelRegularization
from lightning_prune.policies.selection.ranking import Ranking
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.optimizer import assert_bound, rebind_optimizer
from lightning_prune.surgery.trial_cut import try_groups, what_is_left_out

Tell = Callable[[str], None]


class ChannelPruner:
    """Penalises, masks and cuts channels as a configuration says.

    Args:
        model: The model.
        args: Section of the configuration; None: channels are left alone.
        forward: How the model is called with inputs.
        on_cut: Called with what was cut, as one line.

    Attributes:
        reset_optimizer: True once channels were cut: make a new optimizer and set it to False.
        done: Whether nothing is left to do: the model was cut, or everything was freed.
        groups: The channel groups of the dense model.
        plan: What is held at zero; after the cut what was cut.
    """

    def __init__(
        self,
        model: nn.Module,
        args: ChannelSparsityArgs | None,
        forward: Forward,
        on_cut: Tell,
    ) -> None:
        self.reset_optimizer = False
        self.done = args is None or args.reach_mac_target
        self.cut_line = args.log_str if args is not None and args.reach_mac_target else ""
        self.groups = ChannelGroups({})
        self.plan = PruningPlan()
        self._model, self._args = model, args
        self._forward, self._on_cut = forward, on_cut
        self._unchecked = self.cut_line
        self._step_epoch: int | None = None  # scheduled epoch of the latest step
        self._acted: int | None = None  # epoch at which it was made
        self._met = self._warned = False
        self._freed: list[str] = []
        self._mask: ChannelMask | None = None
        self._regularization: ChannelRegularization | None = None
        self._selection: RatioSelection | None = None
        self._stale = StaleParameters()
        if args is not None and args.reach_mac_target and not tells_widths(args.log_str):
            warnings.warn(
                "channel_sparsity_args.reach_mac_target is true, so that nothing is pruned, and "
                f"log_str={args.log_str!r} does not say what was cut: is this model the cut one? "
                "If it is dense, set reach_mac_target to false",
                stacklevel=4,
            )
        if args is not None and not self.done:
            self._prepare(args)

    def _prepare(self, args: ChannelSparsityArgs) -> None:
        model, example = self._model, self._example()
        traced = trace_groups(model, example, self._forward)
        self.groups, refused = try_groups(model, example, traced, self._forward)
        if refused:
            warnings.warn(what_is_left_out(refused), stacklevel=5)
        names = select_groups(args.layers or None, model, self.groups)
        macs = MacModel.of(model, self.groups, example, self._forward)
        ranking: Ranking = "global" if args.global_pruning else "local"
        self._selection = RatioSelection(
            self.groups,
            names,
            macs,
            criterion_of(args),
            "isomorphic" if args.isomorphic else ranking,
            (1 - args.max_pruning_rate, 1.0),
            args.block_size,
            args.fast_widths,
        )
        self._selection.check(model, args.mac_target)
        self._penalise(names)

    def _example(self) -> Any:
        assert self._args is not None
        # Made when needed: the model may have moved to another device.
        return example_inputs(self._args.input_shapes, self._args.container, self._model)

    def _penalise(self, names: tuple[str, ...]) -> None:
        assert self._args is not None
        assert self._selection is not None
        strength = self._args.regularize
        self._regularization = None
        if names and strength.gamma * (strength.reg + strength.mac_reg) > 0:
            self._regularization = ChannelRegularization(
                self._model,
                self.groups,
                names,
                penalty_of(self._args),
                strength.reg,
                strength.mac_reg,
                strength.gamma,
                self._selection.macs,
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
        self, epoch: int, tell: Tell, optimizers: Iterable[Optimizer] = ()
    ) -> PrunedChannels | None:
        """Mask what is due at an epoch, or cut; return what was cut.

        The target that one call meets is cut by the call of the next epoch.
        """
        args = self._args
        if self.done or args is None or self._selection is None:
            self.assert_narrow()
            return None
        self.hold()
        if self._acted is not None and epoch > self._acted and self._complete(args):
            return self.cut(epoch, tell, optimizers)
        due = [step for step in args.schedule.epochs if step <= epoch]
        if due and due[-1] != self._step_epoch and not self._complete(args):
            self._step_epoch, self._acted = due[-1], epoch
            self._step(epoch, args.schedule.ratio(epoch), tell)
        return None

    def prune_now(self, tell: Tell) -> PrunedChannels | None:
        """Mask and cut in one go: the whole ratio, or down to the target."""
        assert self._args is not None
        self._step(0, self._args.schedule.final_ratio, tell)
        return self.cut(0, tell, ())

    def unprune(self, names: Iterable[str] | None = None) -> None:
        """Lift masks: rows, norms and their statistics are as they were, and train freely.

        The groups are not masked again.

        Args:
            names: Groups to free; None: all that are masked.

        Raises:
            KeyError: a group has no mask.
        """
        if self._mask is None or self._selection is None:
            warnings.warn("unprune has no effect: no channel is masked", stacklevel=3)
            return
        lifted = list(self._mask.plan.keep) if names is None else list(names)
        self._mask = self._mask.restore(lifted)
        self._forget(lifted)
        self.hold()

    @property
    def names(self) -> tuple[str, ...]:
        """The groups that are pruned; none once that is done."""
        return () if self._selection is None else self._selection.names

    def hold(self) -> None:
        """Zero what is masked."""
        if self._mask is not None:
            self._mask.apply()

    def after_step(self, optimizer: Optimizer) -> None:
        """Hold the masks; refuse an optimizer that missed the cut."""
        self._stale.check(optimizer)
        self.hold()

    # --- inside -----------------------------------------------------------------------------

    def _complete(self, args: ChannelSparsityArgs) -> bool:
        return self._met or self._step_epoch == args.schedule.epochs[-1]

    def _share(self) -> float:
        assert self._selection is not None
        macs = self._selection.macs
        return macs.remaining(self.plan.widths()) / macs.total

    def _step(self, epoch: int, ratio: float, tell: Tell) -> None:
        assert self._selection is not None
        assert self._args is not None
        self._check_gradients()
        target = self._args.mac_target
        step = self._selection.select(self._model, ratio, target, self.plan)
        self._hold(step.plan)
        self._met = target is not None and step.share <= target
        masked = sum(len(step.plan.removed(name)) for name in step.plan.keep)
        total = sum(step.plan.channels.values())
        tell(
            f"epoch {epoch}: ratio {ratio:.3f}, {masked} of {total} channels masked, "
            f"{step.share:.1%} of the dense MACs remain" + (" (target met)" if self._met else "")
        )

    def _check_gradients(self) -> None:
        assert self._selection is not None
        criterion = self._selection.criterion
        if "gradients" not in criterion.needs or any(
            parameter.grad is not None for parameter in self._model.parameters()
        ):
            return
        raise ValueError(
            f"{type(criterion).__name__} judges channels by the gradients of the loss, and there "
            "are none: call prune() after loss.backward() and before optimizer.zero_grad()"
        )

    def _hold(self, plan: PruningPlan, earlier: dict[str, Any] | None = None) -> None:
        if self._mask is not None:
            earlier = self._mask.originals()
        self.plan = plan
        self._mask = ChannelMask(self._model, self.groups, plan)
        self._mask.remember(earlier)
        self._mask.apply()
        if self._regularization is not None:
            self._regularization.set_masked(plan)

    def _forget(self, names: Iterable[str]) -> None:
        assert self._selection is not None
        assert self._mask is not None
        self._freed += names
        self.plan = self._mask.plan
        old = self._selection
        left = tuple(name for name in old.names if name not in self._freed)
        self._selection = replace(old, names=left)
        target = None if self._args is None else self._args.mac_target
        self._met = target is not None and self._share() <= target
        self.done = not left
        self._penalise(left)

    def cut(self, epoch: int, tell: Tell, optimizers: Iterable[Optimizer]) -> PrunedChannels | None:
        """Remove exactly the masked channels, and carry optimizers across."""
        assert self._mask is not None
        assert self._args is not None
        share, target = self._share(), self._args.mac_target
        if target is not None and not self._met:
            warnings.warn(
                f"the schedule is over with the MAC target unmet: {share:.1%} of the dense MACs "
                f"remain (target {target:.1%}), and that is what is cut. Raise global_prune_rate "
                "or max_pruning_rate, lower block_size, or select more layers",
                stacklevel=4,
            )
        if not self.plan:
            warnings.warn("the schedule is over and no channel is masked: not cut", stacklevel=4)
        self._mask.apply()
        pruned = verified_cut(
            self._model, self.groups, self.plan, self._example(), forward=self._forward
        )
        optimizers = list(optimizers)
        for optimizer in optimizers:
            rebind_optimizer(optimizer, pruned)
        assert_bound(optimizers, pruned)
        self._stale = StaleParameters(pruned.parameters)
        self._mask, self._regularization, self._selection = None, None, None
        self.done = self.reset_optimizer = True
        self.cut_line = cut_record(epoch, share, target, self.plan)
        tell(self.cut_line)
        self._on_cut(self.cut_line)
        return pruned

    def assert_narrow(self) -> None:
        """Check once that a model which is said to be cut is as narrow as that.

        Raises:
            RuntimeError: a layer is as wide as before the cut.
        """
        if self._unchecked:
            assert_cut(self._model, self._unchecked)
            self._unchecked = ""

    def state_dict(self) -> dict[str, Any]:
        """Return masks and progress as plain data."""
        return {
            "plan": self.plan.state_dict(),
            "originals": None if self._mask is None else self._mask.originals(),
            "step_epoch": self._step_epoch,
            "acted": self._acted,
            "met": self._met,
            "freed": list(self._freed),
            "done": self.done,
            "cut_line": self.cut_line,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up masks and progress; a cut model's weights are loaded apart.

        Raises:
            RuntimeError: the state is from before the cut, and the file says it was made.
        """
        if self.done and self._args is not None and not state["done"]:
            raise RuntimeError(
                "the loaded state is from before the cut, and pruning_config.json has "
                "reach_mac_target true: set it to false to go on from this state"
            )
        self._step_epoch, self._acted = state["step_epoch"], state["acted"]
        self.done, self.cut_line = state["done"], state["cut_line"]
        self._unchecked = self.cut_line
        if self.done:
            self._selection, self._regularization = None, None
            if self.cut_line and self._args is not None and not self._args.reach_mac_target:
                self._on_cut(self.cut_line)
            return
        if state["originals"] is not None:
            self._hold(PruningPlan.from_state_dict(state["plan"]), state["originals"])
            if state["freed"]:
                self._forget(state["freed"])
            self._met = state["met"]

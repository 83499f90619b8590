"""Losses between the teacher's and the student's distributions over the vocabulary.

An entry that a teacher rules out with a logit of −inf (spare rows of a padded vocabulary) has probability 0 and adds nothing, as 0·log 0
is 0: no loss is inf or nan for it.

With `truncation_factor` K only the K largest of the teacher's probabilities count, as `truncated_target` says (`objectives.truncated`):
the same function of a teacher that runs and of one whose outputs were stored.
"""

from abc import abstractmethod

import torch

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.objectives.row_losses import sum_over_rows
from pretraining.objectives.truncated import keep_fewer, keep_largest, merge_others, unmerge_gradient
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, SparseTargets, Term, Unit


class LogitObjective(Objective):
    """A loss per position, summed over the M masked positions of a micro-batch or, with `all_positions`, over its N real tokens.

    Subclasses give value and gradient for some rows, see `sum_over_rows`; R in their shapes is some of M (or N).
    """

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        needs = ModelNeeds(token_logits=True) if context.all_positions else ModelNeeds(logits=True)
        self.needs = Needs(student=needs, teacher=needs)
        self.unit = Unit.TOKENS if context.all_positions else Unit.MASKED

    @abstractmethod
    def value(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        """The sum over rows."""

    @abstractmethod
    def gradient(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        """Its derivative with regard to the student's logits (R, V)."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        student_MV, teacher_MV = (
            (student.token_logits, teacher.token_logits) if self.context.all_positions else (student.logits, teacher.logits))
        targets = self._truncated(teacher_MV, teacher.targets)
        if targets is None:
            total = sum_over_rows(self.value, self.gradient, student_MV, teacher_MV.detach())
        else:
            total = self.truncated_sum(student_MV, targets)
        return {self.name: Term(total, self.unit)}

    def truncated_sum(self, student_MV: torch.Tensor, targets: SparseTargets) -> torch.Tensor:
        """The sum where only `targets` are known of the teacher: this loss between K + 1 classes, the entries that are not known as one."""
        classes_MC = torch.cat([targets.logprobs, targets.rest.unsqueeze(1)], dim=1)
        return sum_over_rows(self._merged_value, self._merged_gradient, student_MV, targets.ids, classes_MC)

    def _truncated(self, teacher_MV: torch.Tensor | None, stored: SparseTargets | None) -> SparseTargets | None:
        """What is known of the teacher; None for all of it."""
        kept = self.context.truncation_factor
        if stored is not None:
            return stored if kept is None or stored.rest is None else keep_fewer(stored, kept)
        return None if kept is None or kept >= teacher_MV.shape[1] else keep_largest(teacher_MV.detach(), kept)

    def _merged_value(self, student_RV: torch.Tensor, ids_RK: torch.Tensor, classes_RC: torch.Tensor) -> torch.Tensor:
        return self.value(merge_others(student_RV, ids_RK), classes_RC)

    def _merged_gradient(self, student_RV: torch.Tensor, ids_RK: torch.Tensor, classes_RC: torch.Tensor) -> torch.Tensor:
        return unmerge_gradient(self.gradient(merge_others(student_RV, ids_RK), classes_RC), student_RV, ids_RK)


class TeachersExpectation(LogitObjective):
    """A loss that is T² times an expectation under the teacher of −log q, up to what does not depend on the student.

    Such a one can also do with probabilities of some entries alone, which need not add up to 1:

        ∂/∂z_s = T·((Σ_v p(v))·q − p)
    """

    @property
    def softening(self) -> float:
        """T."""
        return self.context.temperature

    def truncated_sum(self, student_MV: torch.Tensor, targets: SparseTargets) -> torch.Tensor:
        if self.context.truncated_target == "rest":
            return super().truncated_sum(student_MV, targets)
        softened_MK = targets.logprobs / self.softening
        p_MK = torch.softmax(softened_MK, dim=-1) if self.context.truncated_target == "renormalised" else softened_MK.exp()
        return sum_over_rows(self.listed_value, self._listed_gradient, student_MV, targets.ids, p_MK)

    def listed_value(self, student_RV: torch.Tensor, ids_RK: torch.Tensor, p_RK: torch.Tensor) -> torch.Tensor:
        log_q = _log_softmax(student_RV / self.softening)
        return -log_q.gather(1, ids_RK).mul_(p_RK).sum() * self.softening**2

    def _listed_gradient(self, student_RV: torch.Tensor, ids_RK: torch.Tensor, p_RK: torch.Tensor) -> torch.Tensor:
        q = torch.softmax(student_RV / self.softening, dim=-1)
        return q.mul_(p_RK.sum(dim=1, keepdim=True)).scatter_add_(1, ids_RK, -p_RK).mul_(self.softening)


class LogitKl(TeachersExpectation):
    """Kullback-Leibler divergence from the teacher, softened by a temperature (Hinton et al. 2015, §2; DistilBERT's L_ce).

        L = T²/M · Σ_i Σ_v p_i(v) · (log p_i(v) − log q_i(v)),   p = softmax(z_t/T), q = softmax(z_s/T)
        ∂/∂z_s = T·(q − p)

    T² keeps the gradient's size independent of T.
    """

    def value(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        student_RV, teacher_RV = student_RV / self.context.temperature, teacher_RV / self.context.temperature
        log_ratio = _log_softmax(teacher_RV).sub_(_log_softmax(student_RV))
        return log_ratio.mul_(torch.softmax(teacher_RV, dim=-1)).sum() * self.context.temperature**2

    def gradient(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        q, p = (torch.softmax(logits / self.context.temperature, dim=-1) for logits in (student_RV, teacher_RV))
        return q.sub_(p).mul_(self.context.temperature)

    def listed_value(self, student_RV: torch.Tensor, ids_RK: torch.Tensor, p_RK: torch.Tensor) -> torch.Tensor:
        return super().listed_value(student_RV, ids_RK, p_RK) + torch.xlogy(p_RK, p_RK).sum() * self.context.temperature**2


class ReverseKl(LogitObjective):
    """Kullback-Leibler divergence from the student: it seeks modes of the teacher (Gu et al. 2024, MiniLLM, eq. 1, per position).

        L = T²/M · Σ_i Σ_v q_i(v) · r_i(v),   r = log q − log p;   p and q as for `LogitKl`
        ∂/∂z_s = T·q·(r − Σ_v q(v) r(v))

    Where the teacher rules entries out, the divergence of any softmax would be infinite: q is the student's distribution over the others.
    """

    def value(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        q, log_ratio = self._distribution_and_log_ratio(student_RV, teacher_RV)
        return log_ratio.mul_(q).sum() * self.context.temperature**2

    def gradient(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        q, log_ratio = self._distribution_and_log_ratio(student_RV, teacher_RV)
        divergence_R1 = (q * log_ratio).sum(dim=1, keepdim=True)
        return log_ratio.sub_(divergence_R1).mul_(q).mul_(self.context.temperature)

    def _distribution_and_log_ratio(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        student_RV = _without_ruled_out(student_RV, teacher_RV) / self.context.temperature
        log_ratio = _log_softmax(student_RV).sub_(_log_softmax(teacher_RV / self.context.temperature))
        return torch.softmax(student_RV, dim=-1), log_ratio


class SymmetricKl(LogitObjective):
    """Half the sum of both divergences (Jeffreys 1946; Kullback and Leibler 1951).

        L = T²/(2M) · Σ_i KL(p_i ‖ q_i) + KL(q_i ‖ p_i),   each as in `LogitKl` and `ReverseKl`
    """

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.halves = (LogitKl(name, context), ReverseKl(name, context))

    def value(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        forward, reverse = (half.value(student_RV, teacher_RV) for half in self.halves)
        return 0.5 * (forward + reverse)

    def gradient(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        forward, reverse = (half.gradient(student_RV, teacher_RV) for half in self.halves)
        return forward.add_(reverse).mul_(0.5)


class LogitMse(LogitObjective):
    """Squared difference of logits, summed over the vocabulary (DistilBERT's L_mse; no temperature). Needs all logits.

        L = 1/M · Σ_i Σ_v (z_s,i(v) − z_t,i(v))²,   over entries the teacher does not rule out
        ∂/∂z_s = 2·(z_s − z_t)
    """

    def value(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        return self._difference(student_RV, teacher_RV).square_().sum()

    def gradient(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        return self._difference(student_RV, teacher_RV).mul_(2.0)

    def _difference(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        lowest = torch.finfo(student_RV.dtype).min
        return _without_ruled_out(student_RV, teacher_RV).clamp_(min=lowest).sub_(teacher_RV.clamp(min=lowest))


class SoftCrossEntropy(TeachersExpectation):
    """Cross-entropy with the teacher's probabilities at temperature 1 (Hinton et al. 2015, §2), or with its K largest, or with K estimates.

        L = −1/M · Σ_i Σ_v p_i(v) · log q_i(v),   p = softmax(z_t), q = softmax(z_s)
        ∂/∂z_s = q − p

    Of truncated probabilities `unnormalised` is the loss of the pipelines with stored teachers:

        L = −1/M · Σ_i Σ_{v ∈ topK(i)} p_i(v) · log q_i(v),   ∂/∂z_s = (Σ_{v ∈ topK} p(v))·q − p·1[v ∈ topK]
    """

    @property
    def softening(self) -> float:
        return 1.0

    def value(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        return -_log_softmax(student_RV).mul_(torch.softmax(teacher_RV, dim=-1)).sum()

    def gradient(self, student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
        return torch.softmax(student_RV, dim=-1).sub_(torch.softmax(teacher_RV, dim=-1))


def _log_softmax(logits_RV: torch.Tensor) -> torch.Tensor:
    """Finite where the probability is 0, so that a product with that probability is 0 and not nan."""
    return torch.log_softmax(logits_RV, dim=-1).clamp_(min=torch.finfo(logits_RV.dtype).min)


def _without_ruled_out(student_RV: torch.Tensor, teacher_RV: torch.Tensor) -> torch.Tensor:
    """The student's logits, −inf where the teacher's are. A mask would take several times as long on a CPU."""
    limit = (teacher_RV + torch.finfo(teacher_RV.dtype).max).mul_(2.0)  # −inf there, else inf: it bounds nothing
    return torch.minimum(student_RV, limit)

"""Leave-one-out scores of the whole grid, in closed form (derived at the top of the package)."""

import math

import torch

from advlib.ulsif.kernels import SMALLEST_EXPONENT, gram_matrix, kernel_values, product, row_dots
from advlib.ulsif.settings import Settings

_EPS = torch.finfo(torch.float64).eps
# What a square that comes from a difference may lack by rounding, relative to what was subtracted.
_LOST = 1e-12


def loo_scores(
    exponents: torch.Tensor, largest: torch.Tensor, n_nu: int, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Leave-one-out error of the whole grid, from what `draw_exponents` returns, and weights found on the way.

    Returns
    -------
    scores : (C, n_sigmas, n_lambdas) float64 tensor
    weights, means : (C, n_sigmas, b), (C, n_sigmas) float64 tensors
        θ of each σ with its best λ, and the mean ratio over the numerator; NaN where they have to be solved for.
    """
    draws, n_samples, n_centers = exponents.shape
    n_de = n_samples - n_nu
    lambdas = torch.tensor(settings.lambdas, dtype=torch.float64, device=exponents.device)
    scores = exponents.new_zeros(draws, len(settings.sigmas), len(settings.lambdas))
    weights = exponents.new_full((draws, len(settings.sigmas), n_centers), math.nan)
    means = weights[:, :, 0].clone()
    own = settings.center_indices[settings.center_indices < min(n_nu, n_de)].to(exponents.device)
    largest_nu, largest_de = largest.tolist()
    buffer = torch.empty_like(exponents)

    # With δ = ‖Ĥ‖ / (cλ), B⁻¹ is the series Σ_k (−Ĥ)ᵏ / (cλ)ᵏ⁺¹, of which the terms after the k-th weigh a relative
    # δᵏ / (1 − δ). As ‖x_i‖² ≤ n_de ‖Ĥ‖, ‖s_i x_i‖ ≤ δ/(1 − δ) ‖z_i‖, so that one term keeps B⁻¹(z_i + s_i x_i) to a
    # relative 2δ/(1 − δ) and two terms keep it to 2δ²/(1 − δ). ‖Ĥ‖ ≤ ‖Φ_de‖²_F / n_de.
    smallest = (n_de - 1) / n_de * min(settings.lambdas)
    for k, sigma in enumerate(settings.sigmas):
        # Where each kernel is 0 outside its own centre, so is every left-out ratio, and the score is 0.
        alive = [t for t in range(draws) if max(largest_nu[t], largest_de[t]) / sigma**2 > SMALLEST_EXPONENT]
        if not alive:
            continue
        phi = kernel_values(exponents if len(alive) == draws else exponents[alive], sigma, out=buffer[: len(alive)])
        delta = torch.linalg.vector_norm(phi[:, n_nu:], dim=(1, 2)).square_() / (n_de * smallest)
        terms = (1 * (delta > _EPS / 4) + (delta > math.sqrt(_EPS / 4))).tolist()
        for needed in set(terms):
            members = [i for i, found in enumerate(terms) if found == needed]
            at = [alive[i] for i in members]
            part = phi if len(members) == len(alive) else phi[members]
            part = part[:, :n_nu], part[:, n_nu:], lambdas, own
            if needed == 2:
                everything = InEigenbasis(*part)
                scores[at, k] = found = everything.scores()
                weights[at, k], means[at, k] = everything.fit(found)
            else:
                scores[at, k] = (scores_diagonal, scores_two_terms)[needed](*part)
    return scores, weights, means


def _pairs(phi_nu: torch.Tensor, phi_de: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kernel values of the pairs left out in turn, denominator and numerator, (C, n, b), and all numerators' sum."""
    n = min(phi_nu.shape[1], phi_de.shape[1])
    return phi_de[:, :n], phi_nu[:, :n], phi_nu.sum(1, keepdim=True)


class InEigenbasis:
    """All λ of one σ from one eigendecomposition of Ĥ = V diag(μ) Vᵀ, of kernel values (C, n_nu, b) and (C, n_de, b).

    Pair `own[j]` leaves out the numerator point that is centre j.

    A left-out θ is proportional to max(0, B⁻¹y_i) with y_i = z_i + s_i x_i. Where no weight is negative, nothing is
    clamped, and both terms of the score are quadratic forms of B⁻¹, which cost a product with a matrix of L rows. Only
    where a weight may be negative, all of them are computed, by a product of n × b and b × b for each λ.

    The weight that a pair's own centre gets is often negative, since z_i lacks that centre's 1. It is computed by
    itself. Of the others, with ỹ = yV and g = μ/(μ + cλ),

        cλ (B⁻¹y_i)_j = y_ij − Σ_k V_jk g_k ỹ_ik ≥ y_ij − V_j1 g_1 ỹ_i1 − (Σ_k>1 V_jk² g_k)^½ (Σ_k>1 g_k ỹ_ik²)^½,

    with the largest μ first. Most weights that are positive are so by this bound.
    """

    def __init__(self, phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor, own: torch.Tensor):
        self.n_nu, self.n_de, self.lambdas, self.own = phi_nu.shape[1], phi_de.shape[1], lambdas, own
        self.x, self.x_nu, self.total = _pairs(phi_nu, phi_de)
        eigenvalues, self.vectors = eigen(phi_de)
        self.eigenvalues = eigenvalues.clamp_(min=0)
        self.p, self.q_nu = product(self.x, self.vectors), product(self.x_nu, self.vectors)
        self.turned = product(self.total, self.vectors)
        self.q = self.turned - self.q_nu
        self.c_lambda = (self.n_de - 1) / self.n_de * lambdas[:, None]
        self.inverse = 1 / (self.eigenvalues[:, None] + self.c_lambda)
        # A last row of ones gives the plain inner products along with the quadratic forms.
        self.rows = torch.cat([self.inverse, torch.ones_like(self.inverse[:, :1])], 1)
        self.buffer = torch.empty_like(self.p)
        self.zx, self.xx = self._forms(self.p, self.q), self._forms(self.p, self.p)
        self.s = self.zx[:, :-1] / (self.n_de - self.xx[:, :-1])

    def _forms(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return aᵢᵀB⁻¹bᵢ for each λ and then aᵢᵀbᵢ, (C, L + 1, n), of rows (C, n, b) in the eigenbasis."""
        return product(self.rows, torch.mul(a, b, out=self.buffer[:, : a.shape[1]]).mT)

    def scores(self) -> torch.Tensor:
        """Return the leave-one-out errors (C, L)."""
        rows, columns = _rows(self.own, self.x.shape[1]), slice(0, len(self.own))
        # s_i = z_iᵀB⁻¹x_i / (n_de − x_iᵀB⁻¹x_i), so that y_iᵀB⁻¹x_i = n_de s_i.
        ratio = self.n_de * self.s
        linear = (self.inverse * torch.mul(self.q, self.q_nu, out=self.buffer).sum(1, keepdim=True)).sum(2)
        linear += (self.inverse * product(self.s, torch.mul(self.p, self.q_nu, out=self.buffer))).sum(2)
        weights = self._forms(self.p[:, rows], self.vectors[:, columns])[:, :-1] * self.s[:, :, rows]
        weights += self._forms(self.q[:, rows], self.vectors[:, columns])[:, :-1]
        _clamp_own(ratio, linear, weights, self.x, self.x_nu, self.own)
        self._clamp(ratio, linear)
        return _scores_of(ratio, linear, (self.n_de - 1) / (self.n_de * (self.n_nu - 1)), self.x.shape[1])

    def fit(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return θ (C, b) with the λ of the smallest score and the mean ratio (C,); NaN where λ is near rounding."""
        best = self.lambdas[scores.nan_to_num(nan=math.inf).argmin(1)][:, None]
        turned = self.turned.mT / (self.n_nu * (self.eigenvalues + best))[:, :, None]
        theta = product(self.vectors, turned)[:, :, 0].clamp_(min=0)
        theta[(best <= 100 * _EPS * self.eigenvalues[:, -1:])[:, 0]] = math.nan
        return theta, row_dots(self.total[:, 0], theta) / self.n_nu

    def _clamp(self, ratio: torch.Tensor, linear: torch.Tensor) -> None:
        """Replace both terms, (C, L, n) and (C, L), where weights other than a pair's own may be negative."""
        draws, x, s = len(self.x), self.x, self.s
        first, radius, width = self._bound()
        others = self.total - self.x_nu
        others[:, self.own, torch.arange(len(self.own), device=x.device)] = math.inf
        top = self.vectors[:, None, :, -1]
        low = (others.amin((1, 2))[:, None] + s.amin(2).clamp_(max=0))[:, :, None]
        low = low - top.abs() * first.abs().amax(2, keepdim=True) - width * radius.amax(2, keepdim=True)
        positive = (low.amin(2) > 0).tolist()
        left, weights = self.buffer, self.q_nu  # neither is needed any more
        # A larger λ leaves fewer weights negative, so that a draw is not asked again once a bound has failed.
        asked = set(range(draws))
        for k in self.lambdas.argsort(descending=True).tolist():
            open_ = [t for t in range(draws) if not positive[t][k]]
            look = [t for t in open_ if t in asked]
            if look:
                i = slice(None) if len(look) == draws else look
                y = torch.addcmul(others[i], x[i], s[i, k, :, None], out=left[: len(look)])
                y.addcmul_(first[i, k, :, None], top[i], value=-1)
                y.addcmul_(radius[i, k, :, None], width[i, k, None], value=-1)
                failed = {t for t, least in zip(look, y.amin((1, 2)).tolist(), strict=True) if not least > 0}
                asked -= failed
                open_ = [t for t in open_ if t in failed or t not in look]
            if open_:
                i, c = slice(None) if len(open_) == draws else open_, len(open_)
                torch.addcmul(self.q[i], self.p[i], s[i, k, :, None], out=left[:c]).mul_(self.inverse[i, k, None])
                product(left[:c], self.vectors[i].mT, out=weights[:c]).clamp_(min=0)
                ratio[i, k] = row_dots(weights[:c], x[i])
                linear[i, k] = row_dots(weights[:c].flatten(1), self.x_nu[i].flatten(1))

    def _bound(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return g_1 ỹ_i1, (C, L, n), and the two roots of the bound: of ỹ, (C, L, n), and of V, (C, L, b)."""
        p, q, s = self.p, self.q, self.s
        top = self.eigenvalues[:, None, -1:] * self.inverse[:, :, -1:]
        first = q[:, None, :, -1] + s * p[:, None, :, -1]

        def squared(zz: torch.Tensor, zx: torch.Tensor, xx: torch.Tensor) -> torch.Tensor:
            return (zz + 2 * s * zx).addcmul_(s.square(), xx)

        # g = 1 − cλ/(μ + cλ)
        squares = self._forms(q, q), self.zx, self.xx
        radius = squared(*(part[:, -1:] for part in squares)) * (1 + _LOST) - top * first.square()
        radius -= self.c_lambda * squared(*(part[:, :-1] for part in squares))
        inverse = product(self.inverse, self.vectors.square().mT)
        width = 1 + _LOST - self.c_lambda * inverse - top * self.vectors[:, None, :, -1].square()
        return first * top, radius.clamp_(min=0).sqrt_(), width.clamp_(min=0).sqrt_()


def eigen(phi_de: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues (C, b), ascending, and eigenvectors (C, b, b) of Ĥ, from kernel values (C, n_de, b)."""
    n_de, n_centers = phi_de.shape[1:]
    if 2 * n_de > n_centers:
        return torch.linalg.eigh(gram_matrix(phi_de), UPLO="U")
    # Few samples leave most eigenvalues at 0: with Φᵀ = QR only RRᵀ, n_de × n_de, has to be decomposed.
    q, r = torch.linalg.qr(phi_de.mT, mode="complete")
    eigenvalues, vectors = torch.linalg.eigh(gram_matrix(r[:, :n_de].mT))
    zeros = eigenvalues.new_zeros(len(q), n_centers - n_de)
    vectors = torch.cat([q[:, :, n_de:], product(q[:, :, :n_de], vectors)], 2)
    return torch.cat([zeros, eigenvalues], 1), vectors


def scores_two_terms(
    phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    """`InEigenbasis.scores` where B⁻¹ = (I − Ĥ/(cλ)) / (cλ) to machine precision: no matrix is factorised.

    A weight is positive but at a pair's own centre: z is 1 and more there, and Ĥz/(cλ) ≤ δ ‖z‖ beside it nothing.
    """
    n_nu, n_de = phi_nu.shape[1], phi_de.shape[1]
    x, x_nu, total = _pairs(phi_nu, phi_de)
    z = total - x_nu
    gram = gram_matrix(phi_de)
    hx, hz = product(x, gram), product(z, gram)
    c_lambda = (n_de - 1) / n_de * lambdas[:, None]

    def forms(a: torch.Tensor, ha: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return row_dots(a, b)[:, None] - row_dots(ha, b)[:, None] / c_lambda

    s = forms(z, hz, x) / (n_de * c_lambda - forms(x, hx, x))
    ratio, linear = n_de * c_lambda * s, (forms(z, hz, x_nu) + s * forms(x, hx, x_nu)).sum(2)
    z_own, hz_own, x_own, hx_own = (_at_own(values, own) for values in (z, hz, x, hx))
    weights = z_own - hz_own / c_lambda + s[:, :, _rows(own, x.shape[1])] * (x_own - hx_own / c_lambda)
    _clamp_own(ratio, linear, weights, x, x_nu, own)
    return _scores_of(ratio, linear, (n_de - 1) / (n_de * (n_nu - 1)) / c_lambda[:, 0], x.shape[1])


def scores_diagonal(
    phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    """`InEigenbasis.scores` where B = cλ I to machine precision: the left-out θ is z_i / (λ (n_nu − 1))."""
    x, x_nu, total = _pairs(phi_nu, phi_de)
    z = total - x_nu
    linear = row_dots(x_nu, z).sum(1, keepdim=True)
    return _scores_of(row_dots(x, z)[:, None], linear, 1 / lambdas / (phi_nu.shape[1] - 1), x.shape[1])


def _clamp_own(
    ratio: torch.Tensor,
    linear: torch.Tensor,
    weights: torch.Tensor,
    x: torch.Tensor,
    x_nu: torch.Tensor,
    own: torch.Tensor,
) -> None:
    """Take out of both terms what negative `weights` (C, L, k) of k pairs at their own centres put in."""
    rows, negative = _rows(own, x.shape[1]), weights.clamp_(max=0)
    ratio[:, :, rows] -= negative * _at_own(x, own)
    linear -= (negative * _at_own(x_nu, own)).sum(2)


def _rows(own: torch.Tensor, n: int) -> torch.Tensor | slice:
    """Return what picks the pairs `own` among n: where it is all of them, without a copy."""
    return slice(None) if len(own) == n else own


def _at_own(values: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return what the pairs `own` have at their own centres, (C, 1, k), of (C, n, b)."""
    return values[:, _rows(own, values.shape[1]), : len(own)].diagonal(dim1=1, dim2=2)[:, None]


def _scores_of(ratio: torch.Tensor, linear: torch.Tensor, scale: float | torch.Tensor, n: int) -> torch.Tensor:
    """Return the errors (C, L) from the left-out ratios (C, L, n) and the sums over pairs (C, L), both over `scale`."""
    return scale**2 / 2 * ratio.square().mean(2) - scale / n * linear

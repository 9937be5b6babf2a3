# R: loads every package that is part of it, and calls some of their compiled code.
# packages: r-base-core
# needs: Rscript
# pinned: /stats\.so
# pinned: /libR\.so
# results: 12
cat >all.R <<'C'
for (package in sort(rownames(installed.packages(priority = "base"))))
    cat(package, suppressWarnings(requireNamespace(package, quietly = TRUE)), "\n")
set.seed(1)
x <- matrix(rnorm(10000), 100)
cat(format(sum(solve(x)), digits = 8), format(sum(svd(x)$d), digits = 8), "\n")
cat(format(coef(lm(mpg ~ wt + hp, mtcars)), digits = 8), "\n")
cat(format(optim(c(-1.2, 1), function(p) 100 * (p[2] - p[1]^2)^2 + (1 - p[1])^2)$value, digits = 4), "\n")
cat(unlist(parallel::mclapply(1:8, function(i) i^2, mc.cores = 2)), "\n")
cat(format(stats::fft(1:8)[2], digits = 6), tools::md5sum("all.R") != "", grepl("^s.p", "sopin", perl = TRUE), "\n")
C
Rscript --vanilla all.R

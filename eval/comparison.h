// Two models on the same documents, document by document (docs/evaluation.md, "Comparing two models"): the mean
// difference with its error and McNemar's test for scores of 0 and 1, a paired bootstrap for figures that are no
// means, and Holm's correction over all that is shown. Pure; any thread. DataError for documents that differ.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/run_task.h"

namespace retort::eval {

// McNemar 1947 on b and c, the documents that only one model has right: exact, and its mid-p (Lancaster 1961), which
// is less conservative. Two-sided.
struct McNemar {
  double exact = 1, mid = 1;
};
McNemar mcnemar(int64_t only_first, int64_t only_second);

struct Difference {
  std::string task, metric;  // with its filter, where there are several
  int64_t documents = 0;
  double first = 0, second = 0;               // the figures
  double low = 0, high = 0;                   // 95 % interval of second - first
  int64_t only_first = -1, only_second = -1;  // right in one model only; -1: no scores of 0 and 1
  double p = 1, corrected_p = 1;
  std::string test;  // "McNemar", "paired z" or "bootstrap"
};

// Of tasks that both have run, in the same order.
std::vector<Difference> compare(const std::vector<TaskResult>& first, const std::vector<TaskResult>& second);

// Holm 1979: the smallest p times their number, the next times one less, none smaller than one before it.
std::vector<double> holm(std::span<const double> p);

}  // namespace retort::eval

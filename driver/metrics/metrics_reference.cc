// metrics_reference: prints the table of series as README.md shows it.
#include <iostream>

#include "driver/metrics/series.h"

int main() {
  std::cout << jenkins_agent::MetricsMarkdown();
  return std::cout.good() ? 0 : 1;
}

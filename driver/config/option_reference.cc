// option_reference: prints the option tables as README.md shows them.
#include <iostream>

#include "driver/config/readme.h"

int main() {
  std::cout << "### Task options\n\n"
            << jenkins_agent::TaskOptionTable() << "\n### Plugin options\n\n"
            << jenkins_agent::PluginOptionTable();
  return std::cout.good() ? 0 : 1;
}

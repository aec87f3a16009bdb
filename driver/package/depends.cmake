# Read by cpack for each kind of package: the shared libraries of the programs, also of those that the plugin
# carries, as Debian's packages. Without those of the exporter nothing is missing but metrics.
if(CPACK_GENERATOR STREQUAL "DEB")
  set(scratch ${CPACK_DRIVER_BUILD}/driver/package/shlibdeps)
  file(WRITE ${scratch}/debian/control "Source: ${CPACK_PACKAGE_NAME}\n\nPackage: ${CPACK_PACKAGE_NAME}\nArchitecture: amd64\n")
  execute_process(
    COMMAND dpkg-shlibdeps -O -e${CPACK_DRIVER_BUILD}/driver/nomad-driver-jenkins-agent -e${CPACK_DRIVER_BUILD}/driver/programs/tools
            -dRecommends -e${CPACK_DRIVER_BUILD}/driver/programs/exporter
    WORKING_DIRECTORY ${scratch} OUTPUT_VARIABLE found ERROR_QUIET COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "shlibs:Depends=([^\n]*)" line "${found}")
  set(CPACK_DEBIAN_PACKAGE_DEPENDS "${CMAKE_MATCH_1}")
  string(REGEX MATCH "shlibs:Recommends=([^\n]*)" line "${found}")
  string(APPEND CPACK_DEBIAN_PACKAGE_RECOMMENDS ", ${CMAKE_MATCH_1}")
endif()

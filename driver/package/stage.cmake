# Run by cpack when the files are staged: what is made from the build, and one time for all files.
set(stage ${CPACK_TEMPORARY_INSTALL_DIRECTORY})
set(doc ${stage}/usr/share/doc/${CPACK_PACKAGE_NAME})
execute_process(
  COMMAND python3 -B ${CPACK_DRIVER_SCRIPTS}/sbom.py ${CPACK_DRIVER_BUILD} ${CPACK_PACKAGE_NAME} ${CPACK_PACKAGE_VERSION} ${doc}
  COMMAND_ERROR_IS_FATAL ANY)
file(MAKE_DIRECTORY ${stage}/usr/bin)
file(CREATE_LINK /opt/nomad/plugins/${CPACK_PACKAGE_NAME} ${stage}/usr/bin/${CPACK_PACKAGE_NAME} SYMBOLIC)
execute_process(COMMAND gzip -9n ${stage}/usr/share/man/man8/${CPACK_PACKAGE_NAME}.8 COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND chmod -R u=rwX,go=rX ${stage} COMMAND_ERROR_IS_FATAL ANY)
if(DEFINED ENV{SOURCE_DATE_EPOCH})
  execute_process(COMMAND find ${stage} -exec touch --no-dereference --date=@$ENV{SOURCE_DATE_EPOCH} {} +
                  COMMAND_ERROR_IS_FATAL ANY)
endif()

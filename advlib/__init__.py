"""Detecting adversarial examples in batches: two papers re-run, checked, and turned into a calibrated test.

Data flows one way, and so do imports: a module imports only what stands above it, or left of it in its line. (A test
reads this drawing.) The first line of each module says what it is.

    ground       paths · checks · progress · published · exercises
    data         downloads · datasets · batch_files
    networks     models · features · training
    attacks      boundary · attacks · crafted
    engines      ulsif · prdc · runtime
    experiments  protocol · crafting
    tests        samples · permutations · contamination · sealed_file · balls · exchangeability · batch_test
                 · ball_tests · ratio_test · combined_test · detectors · sequential
    G17          g17 · sample_size · transferability · tolerance
    VS22         vs22 · vs22_claims · vs22_boundary · rising_density · admixture · embedding · geometry
                 · cluster_analysis
    both         forensics · forensics_vs22 · changes · peers · power · levels · power_tables
    notebooks    record · runner
    figures      plotting · plotting_g17 · plotting_vs22 · plotting_boundary · plotting_tests
    doors        own_file · report · verdicts · cli
"""

__version__ = "0.1.0"
